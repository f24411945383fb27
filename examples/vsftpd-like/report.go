package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/sandbox"
)

// reportProcesses prints what is in force for the processes that are no workers.
func (s *server) reportProcesses(w io.Writer) error {
	monitor, launcher, missing, err := s.monitor.Postures()
	if err != nil {
		return err
	}
	for _, p := range []struct {
		name    string
		posture *sandbox.Posture
		missing sandbox.Mechanisms
	}{{"monitor", &monitor, s.missing}, {"launcher", &launcher, missing}} {
		fmt.Fprintf(w, "%s: %s\n", p.name, summary(p.posture))
		if p.missing != 0 {
			fmt.Fprintf(w, "%s: MISSING on this host: %v\n", p.name, p.missing)
		}
	}
	return nil
}

// report prints what is in force for each role, as the kernel tells it, of
// workers that are started for this alone.
func (s *server) report(ctx context.Context, w io.Writer) error {
	roles := []privsep.Launch{{Role: &sessionRole, Sandbox: s.sessionSandbox()}, s.accounts.launch}
	if a := s.settings.Anonymous; a != nil {
		roles = append(roles, privsep.Launch{Role: &filesRole, Sandbox: s.treeSandbox(a.UID, a.GID, nil, a.Root, a.Write)})
	}
	if s.keys != nil {
		roles = append(roles, s.keys.launch)
	}
	for _, l := range roles {
		posture, missing, err := s.monitor.Posture(ctx, l)
		if err != nil {
			return fmt.Errorf("role %s: %w", l.Role.Name, err)
		}
		fmt.Fprintf(w, "%s: %s\n", l.Role.Name, summary(&posture))
		kept, note := l.Sandbox, ""
		if ids := s.config.WorkerIDs; kept.UID == 0 && ids.Has(uint32(posture.Threads[0].UID[1])) {
			kept.UID, kept.GID = uint32(posture.Threads[0].UID[1]), uint32(posture.Threads[0].GID[1])
			note = fmt.Sprintf(" (another uid and gid of %v for each worker)", ids)
		}
		fmt.Fprintf(w, "%s: kept: %v%s\n", l.Role.Name, &kept, note)
		if missing != 0 {
			fmt.Fprintf(w, "%s: MISSING on this host: %v\n", l.Role.Name, missing)
		}
	}
	return nil
}

// summary is a posture in one line. Threads of a proved worker or monitor are
// alike; of the launcher the first is shown, which starts workers and alone has
// something effective.
func summary(p *sandbox.Posture) string {
	t := &p.Threads[0]
	root := p.Root
	if p.Hidden {
		root = "(not shown)"
	}
	sets := []string{}
	for _, s := range []struct{ name, set string }{
		{"inh", t.Inheritable.String()}, {"prm", t.Permitted.String()}, {"eff", t.Effective.String()}, {"amb", t.Ambient.String()},
	} {
		if s.set == "" {
			s.set = "none"
		}
		sets = append(sets, s.name+"="+s.set)
	}
	return fmt.Sprintf("%d threads, uid %d, gid %d, %s, NoNewPrivs %t, Seccomp %d, root %s",
		len(p.Threads), t.UID[1], t.GID[1], strings.Join(sets, " "), t.NoNewPrivs, t.Seccomp, root)
}
