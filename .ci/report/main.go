// Command report reads the events of go test -json and prints what matters of
// them: the output of what failed, every skip with its reason, and each
// package's closing line. It exits with 1 for a skip that is not allowed;
// failures are go test's own to report.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
)

type event struct {
	Action, Package, ImportPath, Test, Output string
}

func main() {
	allowed := flag.String("allow", "", "skips whose output matches this `regexp` are allowed; none are without it")
	closing := flag.String("closing", "", "write the packages' closing lines to this `file`, too")
	flag.Parse()
	if err := report(*allowed, *closing); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func report(allowed, closing string) error {
	allow, err := regexp.Compile(allowed)
	if err != nil {
		return err
	}
	var (
		output  = make(map[string]*strings.Builder) // by package and test
		skips   []string
		refused int
		lines   strings.Builder
		tests   int
	)
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if line == "" && err != nil {
			break
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Print(line) // not an event: show it
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			if output[key] == nil {
				output[key] = new(strings.Builder)
			}
			output[key].WriteString(e.Output)
		case "pass":
			if e.Test != "" {
				tests++
				delete(output, key)
				continue
			}
			last := lastLine(output[key])
			fmt.Print(last)
			lines.WriteString(last)
		case "fail":
			if b := output[key]; b != nil {
				fmt.Print(b)
			}
			if e.Test == "" {
				lines.WriteString("FAIL\t" + e.Package + "\n")
			}
		case "skip":
			if e.Test == "" { // a package without tests
				last := lastLine(output[key])
				fmt.Print(last)
				lines.WriteString(last)
				continue
			}
			why := ""
			if b := output[key]; b != nil {
				why = strings.Join(strings.Fields(b.String()), " ")
			}
			if allowed == "" || !allow.MatchString(why) {
				refused++
			}
			skips = append(skips, key+": "+why)
		}
	}
	fmt.Printf("%d tests passed, %d skipped\n", tests, len(skips))
	for _, s := range skips {
		fmt.Println("SKIP", s)
	}
	if closing != "" {
		if err := os.WriteFile(closing, []byte(lines.String()), 0o666); err != nil {
			return err
		}
	}
	if refused > 0 {
		return fmt.Errorf("%d tests were skipped that had to run", refused)
	}
	return nil
}

// lastLine is a package's closing line: ok, its name, its time.
func lastLine(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	all := strings.SplitAfter(b.String(), "\n")
	for i := len(all) - 1; i >= 0; i-- {
		if strings.TrimSpace(all[i]) != "" {
			return all[i]
		}
	}
	return ""
}
