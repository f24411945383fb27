package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/sandbox"
)

// TestMain makes the test binary its own workers.
func TestMain(m *testing.M) {
	privsep.Main(func() {
		if len(os.Args) == 2 && os.Args[1] == limitedArgument {
			os.Exit(limitedMonitor())
		}
		if len(os.Args) == 2 && os.Args[1] == survivorArgument {
			err := survive()
			var lost *privsep.ExitError
			if errors.As(err, &lost) && lost.Role == "launcher" {
				os.Exit(survivorEnd)
			}
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if len(os.Args) == 3 && os.Args[1] == successorArgument {
			if err := succeed(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
		os.Exit(m.Run())
	}, &scriptRole, &visitorRole, &keeperRole, &guardedRole)
}

// scriptRole runs one of scripts, by the name in its message.
var scriptRole = privsep.Role{Name: "script", Main: func(ctx context.Context, w *privsep.Worker) error {
	var m scriptMessage
	if err := w.Message(&m); err != nil {
		return err
	}
	script, ok := scripts[m.Name]
	if !ok {
		script, ok = recordScripts[m.Name]
	}
	if !ok {
		script, ok = filteredScripts[m.Name]
	}
	if !ok {
		script, ok = outputScripts[m.Name]
	}
	if !ok {
		script, ok = demandScripts[m.Name]
	}
	if name, call := strings.CutPrefix(m.Name, "call "); call {
		return callForbidden(name)
	}
	if !ok {
		return fmt.Errorf("no script %q", m.Name)
	}
	return script(ctx, w)
}}

type scriptMessage struct {
	Name string `privsep:"max=32"`
}

// launch is a worker that runs a script.
func launch(script string) privsep.Launch {
	return privsep.Launch{Role: &scriptRole, Sandbox: privsep.Sandbox{Without: without()}, Message: &scriptMessage{script}}
}

// without is what this test's host may lack when an ordinary user runs it.
func without() sandbox.Mechanisms {
	if os.Geteuid() == 0 {
		return 0
	}
	return sandbox.Identity | sandbox.Root | sandbox.Namespaces | sandbox.Landlock |
		sandbox.LandlockScopes | sandbox.WriteExecute | sandbox.Proof
}

func newMonitor(t testing.TB, p *privsep.Policy, ids ...privsep.IDs) *privsep.Monitor {
	t.Helper()
	c := privsep.Config{Log: slog.New(slog.DiscardHandler)}
	if len(ids) > 0 {
		c.WorkerIDs = ids[0]
	}
	m, err := privsep.NewMonitor(p, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func noLeaks(t testing.TB) {
	t.Helper()
	testenv.NoLeaks(t)
}

// children lists the processes that this one has started, zombies too: its
// launchers.
func children(t testing.TB) []int {
	t.Helper()
	return childrenOf(os.Getpid())
}

// workers lists the processes that this one's launchers have started, and that
// have not ended.
func workers() (all []int) {
	for _, launcher := range childrenOf(os.Getpid()) {
		all = append(all, childrenOf(launcher)...)
	}
	return slices.DeleteFunc(all, func(pid int) bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, state, _ := strings.Cut(string(text), ") ")
		return err != nil || strings.HasPrefix(state, "Z")
	})
}

func childrenOf(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(word)
			all = append(all, child)
		}
	}
	return all
}
