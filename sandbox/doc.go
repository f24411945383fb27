// Package sandbox applies a worker's confinement, and reads back from the
// kernel what is in force.
//
// # What it does not protect
//
// A sandbox limits what a worker can ask of the kernel. It is no defence
// against bugs in the kernel calls that are left, against side channels
// between processes of one machine, or against a monitor that believes what a
// worker says. /proc shows no Landlock domain: that layer is applied or the
// worker does not start, but no [Posture] can prove it afterwards.
//
// # The order
//
// Each step needs something that a later one takes away, so the order is fixed
// and is known here only. The launching thread, once: empty namespaces, a
// bounding set of the two capabilities that are used last, and securebits that
// make uid 0 nobody special ([PrepareThread]). Each launch, between fork and
// exec: groups and group ([Ground.Attributes]). Then the worker, before
// it reads one byte that another has chosen ([Profile.Enter]):
//
//  1. the bounding set and the securebits, which need CAP_SETPCAP
//  2. Landlock, and no_new_privs with it; it must open its paths while they
//     still have names
//  3. the new root, opened as the user and entered with CAP_SYS_CHROOT
//  4. dumpable 0, then the user, with which the last capabilities go, on every
//     thread: with none left and dumpable, another process of the user's could
//     trace it
//  5. resource limits that the Go runtime survives, MDWE
//  6. the death signal, which each change of credentials had disarmed, and
//     then the look whether the parent died before
//  7. the filter, on every thread: after it, none of the above can be called
//
// Starting and killing processes may not live here: that is package privsep's.
package sandbox
