package privsep_test

import (
	"testing"

	"github.com/go-privsep/sallyport/internal/mutation"
)

// The controls: with a rule removed, its attack is seen to succeed.
func TestMissingRulesAreSeen(t *testing.T) {
	if testing.Short() {
		return // each is a build; the full suite has them
	}
	const rules = "../seccomp/rules.go"
	all := []mutation.Mistake{
		{Name: "the handler of SIGSYS may be another", File: rules, Run: "^TestFilteredCannotBeAvoided$/^return$",
			Old: `{calls: "rt_sigaction", when: all(cond{0, anInt, []uint64{sigsys, sigsegv}}), do: Kill},`, New: "{calls: \"rt_sigaction\", when: all(cond{0, anInt, []uint64{sigsys, sigsegv}})},"},
		{Name: "but for a number that the kernel cuts", File: rules, Run: "^TestFilteredCannotBeAvoided$/^return_with_a_long_number$",
			Old: "const anInt = 0xffff_ffff", New: "const anInt = 0xffff_ffff_ffff_ffff"},
		{Name: "the handler of SIGSEGV may be another", File: rules, Run: "^TestFilteredCannotBeAvoided$/^catch_SIGSEGV$",
			Old: "[]uint64{sigsys, sigsegv}}", New: "[]uint64{sigsys}}"},
		{Name: "other code may be put in its place", File: rules, Run: "^TestFilteredCannotBeAvoided$/^move_code$",
			Old: "mremapFixed | mremapDontUnmap}}), do: Kill},", New: "mremapFixed | mremapDontUnmap}})},"},
		{Name: "or to where there is room", File: rules, Run: "^TestFilteredCannotBeAvoided$/^move_code_to_a_gap$",
			Old: "[]uint64{mremapFixed, mremapDontUnmap, mremapFixed | mremapDontUnmap}", New: "[]uint64{mremapFixed, mremapFixed | mremapDontUnmap}"},
		{Name: "a session is served after its end", File: "host.go", Run: "^TestSharedEndCounts$",
			Old: "		_ = s.conn.CloseRead() // it said so", New: "		// it said so", Caught: "it goes on after the end"},
		// What a worker has from its launcher is no proof.
		{Name: "no filter is installed", File: "../sandbox/enter_linux.go", Run: "^TestFilteredCannotBeAvoided$/^return$",
			Old: "		{\"filter\", e.filter},\n", New: "", Caught: "no filter of its own"},
	}
	for i := range all {
		all[i].Package = "."
		if all[i].Caught == "" {
			all[i].Caught = "it lives on"
		}
	}
	mutation.Run(t, all)
}
