package privseptest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/internal/mutation"
)

// The controls of Hostile: with a defence removed from the dispatcher, the
// server or the codec, an attack of that class is seen to succeed. All defences
// are removed in one program, and each run of it is told which it must do without.
func TestHostileSeesMissingDefences(t *testing.T) {
	if testing.Short() {
		return // it is a build; the full suite has it
	}
	const (
		dispatch = "../dispatch.go"
		server   = "../../ipc/server.go"
		packet   = "../../ipc/packet.go"
		scan     = "../../ipc/scan.go"
		codec    = "../../ipc/codec.go"
	)
	all := []struct {
		name, file string
		run        string // one attack of the class: each that succeeds costs the kit's patience
		old, new   string // WITHOUT holds if it is this one
	}{
		{"any phase permits", dispatch, "policy.knock", "	permit := c.phase.permits[c.op.number]\n	if !c.watch",
			"	permit := c.phase.permits[c.op.number]\n	if permit == nil && WITHOUT {\n		permit = c.policy.phases[0].permits[c.op.number]\n	}\n	if !c.watch"},
		{"no budget", dispatch, "policy.open_is_called_5_times$", "if !c.spend() {", "if !c.spend() && !WITHOUT {"},
		{"descriptors stay open", packet, "files.2_to_open", "	for _, fd := range p.bare {\n		sys.Close(fd)\n", "	for _, fd := range p.bare {\n		if WITHOUT {\n			break\n		}\n		sys.Close(fd)\n"},
		{"a number of descriptors is not compared", codec, "files.2_to_open", "if open+len(packet.bare) != len(p.files) {",
			"if n := open + len(packet.bare); n != len(p.files) && !(WITHOUT && n > len(p.files)) {"},
		{"kinds are not asked", codec, "files.a_device_to_list", `kind.judge(uintptr(packet.bare[i-open])); got != "" {`, `kind.judge(uintptr(packet.bare[i-open])); got != "" && !WITHOUT {`},
		{"trailing bytes", scan, "body_of_open.with_1_bytes_behind_it,_the_first_0x0$", `if reason == "" && len(s.rest) > 0 {`, `if reason == "" && len(s.rest) > 0 && !WITHOUT {`},
		{"more than one encoding", scan, "body_of_open.Port_in_more", "if t.number < w.least {", "if t.number < w.least && !WITHOUT {"},
		{"fields under any name", scan, "body_of_open.with_Name_under", "if !bytes.HasPrefix(f.key, key) {", "if !bytes.HasPrefix(f.key, key) && !WITHOUT {"},
		{"reserved bytes", packet, "packet.with_0x1_", "case b[2] != 0 || b[3] != 0:", "case (b[2] != 0 || b[3] != 0) && !WITHOUT:"},
		{"an announced number", packet, "packet.that_announces_1_", "case int(b[1]) != len(p.bare):", "case int(b[1]) != len(p.bare) && !WITHOUT:"},
		{"calls in any order", server, "packet.call_number_skipped", "if p.Call != s.last+1 {", "if p.Call != s.last+1 && !(WITHOUT && p.Call > s.last) {"},
		{"any number outstanding", server, "flow.more_calls", "outstanding >= Outstanding {", "outstanding >= Outstanding && !WITHOUT {"},
		{"cancels without end", server, "packet.cancels_a_million", "s.cancels > s.last", "s.cancels > s.last && !WITHOUT"},
		{"calls without time", server, "flow.a_call_with_no", "p.Value == 0 {", "p.Value == 0 && !WITHOUT {"},
		{"the caller's time is not heard", server, "flow.a_deadline_ends", "	return &callContext{", "	if WITHOUT {\n		limit = time.Hour\n	}\n	return &callContext{"},
	}
	const variable = "SALLYPORT_WITHOUT"
	var changes []mutation.Change
	for _, m := range all {
		changes = append(changes, mutation.Change{File: m.file, Old: m.old, New: strings.ReplaceAll(m.new, "WITHOUT", `(without == "`+m.name+`")`)})
	}
	for file, before := range map[string]string{dispatch: "// guard turns ", packet: "// headerSize is "} { // one of each package
		changes = append(changes, mutation.Change{File: file, Old: "import (\n", New: "import (\n	mutant \"os\"\n"},
			mutation.Change{File: file, Old: before, New: "var without = mutant.Getenv(\"" + variable + "\")\n\n" + before})
	}
	program := mutation.Build(t, ".", changes)

	run := func(without, attack string) (*exec.Cmd, *strings.Builder) {
		cmd, out := exec.Command(program, "-test.run=^TestHostile$/^room$/"+attack), new(strings.Builder)
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), variable+"="+without), out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, out
	}
	// At once: what they do is wait for an end that does not come.
	var ends []func()
	for _, m := range all {
		cmd, out := run(m.name, m.run)
		ends = append(ends, func() {
			t.Run(m.name, func(t *testing.T) {
				want := "--- FAIL: TestHostile/room/"
				if m.name == "descriptors stay open" {
					want = "left behind: descriptors"
				}
				if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), want) {
					t.Errorf("want %s, got %v:\n%s", want, err, out)
				}
			})
		})
	}
	for _, end := range ends {
		end()
	}
	for _, m := range all { // nor is it the removing that fails
		if cmd, out := run("nothing", m.run); cmd.Wait() != nil || strings.Contains(out.String(), "no tests") {
			t.Errorf("%s, with every defence: %v\n%s", m.name, cmd.ProcessState, out)
		}
	}
}
