package privseptest

import (
	"fmt"
	"os"
	"slices"
	"sort"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// policyAttacks are good calls that the policy does not allow.
func (a *arena) policyAttacks(permitted []*fortest.Op) (all []attack) {
	for _, op := range a.policy.Ops {
		if !slices.Contains(permitted, op) {
			all = append(all, attack{
				name: "policy/" + op.Name + " is not permitted", explanation: "an operation is closed unless the phase permits it",
				op: op, want: "not permitted in this phase", do: func(x *attacker) { _ = x.call(op) },
			})
		}
	}
	for _, op := range permitted {
		if op.Calls < 0 {
			continue
		}
		over := attack{
			name:        fmt.Sprintf("policy/%s is called %d times", op.Name, op.Calls+1),
			explanation: "the monitor counts, because a worker's own counter (vsftpd's of failed logins) is the attacker's",
			op:          op, want: "called too often", runs: true,
			do: func(x *attacker) {
				for range op.Calls {
					if err := x.call(op); err != nil {
						x.Errorf("call %d: %v", x.number, err)
					}
					if got, err := x.conn.get(patience); err != nil || got.verdict() != "reply" {
						x.Errorf("call %d: %s (%v)", x.number, got.verdict(), err)
					}
				}
				_ = x.call(op)
			},
		}
		atOnce := over
		atOnce.name, atOnce.explanation = over.name+" at once", "a budget holds for calls that are not answered, too"
		atOnce.do = func(x *attacker) {
			for i := range op.Calls + 1 {
				if x.call(op) != nil {
					return
				}
				if i >= ipc.Outstanding/2 {
					_, _ = x.conn.get(patience)
				}
			}
		}
		all = append(all, over, atOnce)
	}
	return all
}

// fileAttacks send descriptors that nobody declared.
func (a *arena) fileAttacks(ops []*fortest.Op, any *fortest.Op) (all []attack) {
	add := func(name, explanation, want string, op *fortest.Op, do func(x *attacker)) {
		all = append(all, attack{name: "files/" + name, explanation: explanation, want: want, op: op, do: do})
	}
	// with sends a call of op with these descriptors, all announced.
	with := func(x *attacker, op *fortest.Op, files ...*os.File) {
		f := x.good(op)
		f.files = byte(len(files))
		_ = x.conn.send(f, files...)
	}
	device := a.objects.odd["a device"]
	for _, n := range []int{17, 253} {
		add(fmt.Sprintf("%d descriptors", n), "a receiver's buffer holds all that the kernel delivers, so that none stays open unseen",
			"more descriptors than any", nil, func(x *attacker) { with(x, any, slices.Repeat([]*os.File{device}, n)...) })
	}
	add("one that is not announced", "the header and the kernel agree on how many came", "not the number announced", nil, func(x *attacker) {
		f := x.good(any)
		_ = x.conn.send(f, slices.Repeat([]*os.File{device}, int(f.files)+1)...)
	})
	add("a cancel with one", "nobody takes it", "cancels no call", nil, func(x *attacker) {
		_ = x.call(any)
		_ = x.conn.send(frame{kind: cancel, files: 1, call: 1}, device)
	})
	all[len(all)-1].runs = true
	for _, op := range ops {
		kinds := op.Request.Files()
		for _, n := range []int{0, 1, 2, 16} {
			if n != len(kinds) {
				add(fmt.Sprintf("%d to %s, which declares %d", n, op.Name, len(kinds)), "an operation says how many it takes", "wrong number of files", op,
					func(x *attacker) { with(x, op, slices.Repeat([]*os.File{device}, n)...) })
			}
		}
		for i, want := range kinds {
			wrong := make(map[string]*os.File)
			for kind, f := range a.objects.kinds {
				if want.Verify(f) != nil {
					wrong["a file of kind "+kind.String()] = f
				}
			}
			for name, f := range a.objects.odd {
				wrong[name] = f
			}
			names := make([]string, 0, len(wrong))
			for name := range wrong {
				names = append(names, name)
			}
			sort.Strings(names)
			for _, name := range names {
				add(fmt.Sprintf("%s to %s for one of kind %v (%d)", name, op.Name, want, i), "an operation says of what kind", "needs a file of kind "+want.String(), op,
					func(x *attacker) {
						files, err := x.objects.of(kinds...)
						if err != nil {
							x.Fatal(err)
						}
						defer closeAll(files)
						sent := slices.Clone(files)
						sent[i] = wrong[name]
						with(x, op, sent...)
					})
			}
		}
		if len(kinds) != 1 {
			add("the channel itself to "+op.Name, "a cycle of sockets under way belongs to nobody", "wrong number of files", op,
				func(x *attacker) { with(x, op, x.conn.file) })
		}
	}
	return all
}
