package seccomp

import (
	"fmt"
	"strings"
)

// Explain says, in one line for an operator, what a filter for promises does
// with a call and which further promise would allow it:
//
//	socket: killed; no promise allows it
//	pwrite64: killed; Files allows it
//	openat: allowed or killed, by its arguments; WritePaths allows more
func Explain(a Arch, promises Promises, nr uint32) string {
	name, ok := Name(a, nr)
	if !ok {
		return fmt.Sprintf("call %d: unknown on %q, %v", nr, string(a), NoSys)
	}
	now := alternatives(a, promises, name)
	verdict := now[len(now)-1].do
	if len(now) == 1 && verdict == Allow {
		return fmt.Sprintf("%s: %v", name, verdict)
	}
	var helps []string
	for p := Promises(1); p < end; p <<= 1 {
		if p&promises == 0 && allows(alternatives(a, promises|p, name)) > allows(now) {
			helps = append(helps, p.String())
		}
	}
	conditional := len(now) > 1
	what, remedy := verdict.String(), "no promise allows it"
	if conditional {
		what, remedy = fmt.Sprintf("%v or %v, by its arguments", now[0].do, verdict), "no promise allows more"
	}
	if len(helps) > 0 {
		remedy = strings.Join(helps, " or ") + " allows it"
		if allows(now) > 0 {
			remedy = strings.Join(helps, " or ") + " allows more"
		}
	}
	return fmt.Sprintf("%s: %s; %s", name, what, remedy)
}

// alternatives returns the verdict on a call; the last alternative has no
// condition.
func alternatives(a Arch, promises Promises, name string) []alternative {
	v := verdicts(a.rules(1), promises)[name]
	if n := len(v); n == 0 || len(v[n-1].when) > 0 {
		v = append(v, alternative{do: Kill})
	}
	return v
}

// allows counts the alternatives that allow.
func allows(v []alternative) (n int) {
	for _, a := range v {
		if a.do == Allow {
			n++
		}
	}
	return n
}
