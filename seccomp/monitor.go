package seccomp

import (
	"fmt"
	"strings"
)

// CompileMonitor returns the filter of a monitor whose id is selfPID: what
// promises keep, and what Streams and Accept do, and beyond these to make TCP
// sockets of both families, to bind, listen and connect, to make pairs of
// AF_UNIX sockets, to raise for a moment what is permitted (capset), and to wait for
// children. Sockets of any other family and type are to be opened before.
//
// A known call that is not kept fails with EPERM, and kills nobody: a mistake in
// this list would be the end of every session, and a monitor that was taken over can
// bring that about anyway. Another architecture's calls kill.
func CompileMonitor(a Arch, promises Promises, selfPID int) (Filter, error) {
	audit, err := a.audit()
	if err != nil {
		return Filter{}, err
	}
	if promises >= end || selfPID <= 0 {
		return Filter{}, fmt.Errorf("seccomp: promises %v, process id %d", promises, selfPID)
	}
	rules := append(monitorRules(), a.rules(uint64(selfPID))...)
	return a.emit(audit, verdicts(rules, promises|Streams|Accept), Denied, Kill, false)
}

func monitorRules() []rule {
	const (
		afUnix, afInet, afInet6 = 1, 2, 10
		stream, seqpacket       = 1, 5
		tcp, mptcp              = 6, 262 // net.Listen asks for the second
		solIPv6, solMPTCP       = 41, 284
		v6Only                  = 26
	)
	flags := ^uint64(nonblockCloexec)
	return []rule{
		{calls: "socket", when: all(is(0, afInet, afInet6), cond{1, flags, []uint64{stream}}, is(2, 0, tcp, mptcp))},
		{calls: "socketpair", when: all(is(0, afUnix), cond{1, flags, []uint64{stream, seqpacket}}, is(2, 0))},
		{calls: "bind listen connect getsockname"},
		// SO_REUSEADDR SO_BROADCAST SO_SNDBUF SO_RCVBUF SO_KEEPALIVE SO_OOBINLINE
		// SO_LINGER SO_REUSEPORT SO_RCVTIMEO SO_SNDTIMEO: no filter, no mark, no
		// device.
		{calls: "setsockopt", when: all(is(1, solSocket), is(2, 2, 6, 7, 8, 9, 10, 13, 15, 20, 21))},
		{calls: "setsockopt", when: all(is(1, solTCP), is(2, 1, 3, 4, 5, 6, 9, 18))},
		{calls: "setsockopt", when: all(is(1, solIPv6), is(2, v6Only))},
		{calls: "getsockopt", when: all(is(1, solSocket, solTCP, solIPv6, solMPTCP))},
		{calls: "fcntl", when: all(is(1, 37))}, // F_OFD_SETLK, of workers' ids over an upgrade
		{calls: "capget capset"},               // the brackets of caps.With
		{calls: "waitid wait4"},
	}
}

// CompileLauncher returns the filter of a process that starts others, which they
// inherit below their own: every call of any promise, whatever its arguments, and what it takes to
// execute a program as another user in another root and to confine it. It goes
// by numbers alone, so that the kernel answers for it from a bitmap (since 5.11).
//
// What is left out fails with EPERM: to make a socket, to trace or read another
// process, mounts, new namespaces, devices, modules, bpf, perf, io_uring, keys,
// clocks and the like. No word of this is about paths or identities.
func CompileLauncher(a Arch) (Filter, error) {
	audit, err := a.audit()
	if err != nil {
		return Filter{}, err
	}
	v := make(map[string][]alternative)
	allow := func(names []string) {
		for _, name := range names {
			v[name] = []alternative{{do: Allow}}
		}
	}
	for _, r := range append(monitorRules(), a.rules(1)...) {
		if r.do == 0 || r.do == Allow {
			allow(r.names())
		}
	}
	for _, r := range a.rules(1) {
		if r.do == NoSys && len(v[r.names()[0]]) == 0 {
			v[r.names()[0]] = []alternative{{do: NoSys}}
		}
	}
	for _, name := range []string{"socket", "bind", "listen", "connect"} {
		delete(v, name)
	}
	allow(strings.Fields(launcherCalls))
	return a.emit(audit, v, Denied, Kill, false)
}

// launcherCalls are what a launcher calls, and what its workers do before their own filter:
// the start of a Go program, with and without cgo, and package sandbox's steps.
const launcherCalls = `clone execve execveat kill pidfd_send_signal pidfd_open
	setsid setpgid dup2 dup3 dup close_range pipe pipe2 open access readlink stat lstat arch_prctl set_tid_address prlimit64
	setrlimit getrlimit sched_setaffinity sysinfo umask chdir fchdir chroot
	prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
	setuid setgid setgroups setresuid setresgid setfsuid setfsgid getgroups getresuid getresgid
	tgkill tkill rt_sigtimedwait getrusage eventfd2 epoll_create epoll_wait poll select pselect6 mincore
	mprotect mmap gettimeofday time times getpgrp getpgid getsid fchown mlock munlock statfs`
