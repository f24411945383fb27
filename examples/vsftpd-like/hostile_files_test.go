//go:build linux

package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fileCalls are tried where a worker is: the session worker's root is a
// directory that no longer exists, the files worker's is newTree's. Their
// control is in such a tree, too, but sees the host around it.
func fileCalls() []callCase {
	open := func(path string, flags uintptr, mode ...uintptr) attack {
		return func(a *attacker) string {
			return a.call(unix.SYS_OPENAT, append([]uintptr{here, cstring(path), flags}, mode...)...)
		}
	}
	const read, write, create = unix.O_RDONLY, unix.O_WRONLY, unix.O_WRONLY | unix.O_CREAT
	const hidden = "ENOENT"
	// The filter refuses a session worker all reading, and kills it for more.
	reading := func(name, why string, do attack) callCase {
		return callCase{name, why, "EACCES", hidden, "", "ok", do}
	}
	changing := func(name, why string, do attack) callCase {
		return callCase{name, why, killed, killed, hidden, "ok", do}
	}
	return []callCase{
		reading("open /etc/passwd", "it is not in the root", open("/etc/passwd", read)),
		reading("open a directory of the host", "it is not in the root", open("/etc", read|unix.O_CLOEXEC)),
		reading("climb with ..", "the root's parent is the root", open("../outside/public", read)),
		reading("climb from below", "the root's parent is the root", open("dir/../../outside/public", read)),
		reading("follow an absolute link", "it begins at the root", open("absolute", read)),
		reading("follow a link upwards", "the root's parent is the root", open("upwards", read)),
		reading("reopen through /proc/self/fd", "there is no /proc", open("/proc/self/fd/0", read)),
		reading("reopen through /dev/fd", "there is no /dev", open("/dev/fd/0", read)),
		reading("open a device", "there is no /dev", open("/dev/null", read)),
		changing("open /proc/self/mem", "writes where no write may go", open("/proc/self/mem", unix.O_RDWR)),
		changing("write outside", "the root's parent is the root", open("../outside/public", write)),
		changing("create outside", "the root's parent is the root", open("../outside/new", create, 0o600)),
		changing("mkdir outside", "the same", func(a *attacker) string {
			return a.call(unix.SYS_MKDIRAT, here, cstring("../outside/new"), 0o700)
		}),
		changing("unlink outside", "the same", func(a *attacker) string {
			return a.call(unix.SYS_UNLINKAT, here, cstring("../outside/public"), 0)
		}),
		changing("rename to the outside", "the same", func(a *attacker) string {
			return a.call(unix.SYS_RENAMEAT, here, cstring("readme.txt"), here, cstring("../outside/stolen"))
		}),
		changing("truncate outside", "the same", func(a *attacker) string {
			return a.call(unix.SYS_TRUNCATE, cstring("../outside/public"), 0)
		}),
		changing("set times outside", "the same", func(a *attacker) string {
			return a.call(unix.SYS_UTIMENSAT, here, cstring("../outside/public"), 0, 0)
		}),
		{rootOnly + "open another user's file", "the user's own rights are left", "EACCES", "EACCES", "", "ok", open("hardlink", read)},
		{"stat outside", "the root's parent is the root", killed, hidden, "", "ok", func(a *attacker) string {
			return a.call(unix.SYS_NEWFSTATAT, here, cstring("../outside/public"), room(), 0)
		}},
		{"ask who runs", "there is no /proc", killed, hidden, "", "ok", func(a *attacker) string {
			return a.call(unix.SYS_READLINKAT, here, cstring("/proc/self/exe"), room(), 4096)
		}},
		{"openat2", "programs fall back to openat", "ENOSYS", "ENOSYS", "", "ok", func(a *attacker) string {
			var how unix.OpenHow
			return a.call(unix.SYS_OPENAT2, here, cstring("/etc/passwd"), uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how))
		}},
		deniedBy("open with O_PATH", "a place to go on from, and no kind of file", "ok", open("/", unix.O_PATH)),
		deniedBy("open with O_TMPFILE", "a file without a name", "ok", open("/tmp", unix.O_TMPFILE|unix.O_RDWR, 0o600)),
		deniedBy("create with set-user-ID", "it outlives the sandbox", "ok", open("new", create, 0o4755)),
		denied("chmod to set-user-ID", "it outlives the sandbox", "ok", unix.SYS_FCHMODAT, here, cstring("readme.txt"), 0o4755),
		denied("link", "protects nothing and prolongs much", "ok", unix.SYS_LINKAT, here, cstring("readme.txt"), here, cstring("new"), 0),
		denied("symlink", "a trap for whoever follows", "ok", unix.SYS_SYMLINKAT, cstring("/etc/shadow"), here, cstring("new")),
		denied("mknod of a FIFO", "holds up whoever opens it", "ok", unix.SYS_MKNODAT, here, cstring("new"), unix.S_IFIFO|0o600, 0),
		denied("mknod of a disk", "the disk", "ok", unix.SYS_MKNODAT, here, cstring("new"), unix.S_IFBLK|0o600, 254<<8),
		denied("rename to exchange", "swaps a name under whoever looks first", "ok", unix.SYS_RENAMEAT2, here, cstring("readme.txt"), here, cstring("dir"), unix.RENAME_EXCHANGE),
		denied("chown", "not needed", "ok", unix.SYS_FCHOWNAT, here, cstring("readme.txt"), 0, 0, 0),
		denied("setxattr", "capabilities and ACLs are attributes", "", unix.SYS_SETXATTR, cstring("readme.txt"), cstring("user.x"), room(), 1, 0),
		denied("name_to_handle_at", "a name that no root confines (CVE-2015-1334 and before: shocker)", "", unix.SYS_NAME_TO_HANDLE_AT, here, cstring("."), room(), room(), 0),
		denied("open_by_handle_at", "opens by it", "", unix.SYS_OPEN_BY_HANDLE_AT, here, room(), 0),
		denied("statfs", "not needed", "ok", unix.SYS_STATFS, cstring("/"), room()),
		denied("statmount", "what the host has mounted", "", unix.SYS_STATMOUNT, room(), room(), 512, 0),
	}
}

// socketCalls are about networks: no worker makes a socket or turns one that
// it was handed into another.
func socketCalls() []callCase {
	families := []struct {
		name string
		n    uintptr
		kind uintptr
	}{
		{"AF_INET", unix.AF_INET, unix.SOCK_STREAM}, {"AF_INET6", unix.AF_INET6, unix.SOCK_DGRAM}, {"AF_UNIX", unix.AF_UNIX, unix.SOCK_STREAM},
		{"AF_NETLINK", unix.AF_NETLINK, unix.SOCK_RAW}, {"AF_PACKET", unix.AF_PACKET, unix.SOCK_RAW},
		{"AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM}, {"AF_ALG", unix.AF_ALG, unix.SOCK_SEQPACKET}, {"AF_XDP", unix.AF_XDP, unix.SOCK_RAW},
	}
	var all []callCase
	for _, f := range families {
		all = append(all, denied("socket "+f.name, "a worker has the sockets that it was handed", "", unix.SYS_SOCKET, f.n, f.kind, 0))
	}
	// handed is a call on the first descriptor that the worker was handed: the
	// client's connection, or the channel.
	handed := func(name, why, bare string, nr uintptr, args ...uintptr) callCase {
		return deniedBy(name, why, bare, func(a *attacker) string {
			return a.call(nr, append([]uintptr{fdOf(a.files[0])}, args...)...)
		})
	}
	anywhere := func() uintptr { // an IPv4 address, 127.0.0.1:1
		s := &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 1 << 8, Addr: [4]byte{127, 0, 0, 1}}
		keptAddresses = append(keptAddresses, s)
		return uintptr(unsafe.Pointer(s))
	}
	const addressSize = unix.SizeofSockaddrInet4
	return append(all,
		denied("socketpair", "descriptors can hide in one that nobody reads", "ok", unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM, 0, room()),
		handed("connect elsewhere", "to the monitor's and everybody's sockets", "", unix.SYS_CONNECT, anywhere(), addressSize),
		handed("disconnect", "connect with AF_UNSPEC makes a new socket of it", "ok", unix.SYS_CONNECT, room(), addressSize),
		handed("bind", "another address", "EINVAL", unix.SYS_BIND, anywhere(), addressSize),
		handed("listen", "a server of its own", "EINVAL", unix.SYS_LISTEN, 1),
		handed("accept", "no worker is handed a listener", "EINVAL", unix.SYS_ACCEPT4, 0, 0, 0),
		handed("sendmsg with MSG_FASTOPEN", "it is connect by another name", "", unix.SYS_SENDMSG, room(), unix.MSG_FASTOPEN),
		handed("sendmsg with MSG_OOB", "its bookkeeping gave away the kernel (CVE-2025-38236)", "", unix.SYS_SENDMSG, room(), unix.MSG_OOB),
		handed("sendmsg with MSG_ZEROCOPY", "pins memory that others account for", "", unix.SYS_SENDMSG, room(), unix.MSG_ZEROCOPY),
		handed("sendto with an address", "it is connect by another name", "", unix.SYS_SENDTO, room(), 1, unix.MSG_DONTWAIT, anywhere(), addressSize),
		handed("sendmmsg", "sendmsg where no filter sees the flags", "ok", unix.SYS_SENDMMSG, room(), 0, 0),
		handed("setsockopt SO_MARK", "the packet filter believes it", "", unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_MARK, room(), 4),
		handed("setsockopt SO_ATTACH_FILTER", "programs in the kernel", "", unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, room(), 16),
		handed("setsockopt SO_RCVBUFFORCE", "not needed", "", unix.SYS_SETSOCKOPT, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room(), 4),
		handed("setsockopt TCP_ULP", "loads a module and adds much code", "", unix.SYS_SETSOCKOPT, unix.SOL_TCP, unix.TCP_ULP, cstring("tls"), 3),
		handed("setsockopt IP_OPTIONS", "routes that the client chooses", "", unix.SYS_SETSOCKOPT, unix.SOL_IP, unix.IP_OPTIONS, room(), 4),
		handed("getsockopt SO_PEERPIDFD", "a handle on the monitor", "", unix.SYS_GETSOCKOPT, unix.SOL_SOCKET, unix.SO_PEERPIDFD, room(), room()),
	)
}

var keptAddresses []*unix.RawSockaddrInet4

// fdOf is f's descriptor; File.Fd could make it block.
func fdOf(f *os.File) (fd uintptr) {
	raw, err := f.SyscallConn()
	if err != nil {
		panic(err)
	}
	raw.Control(func(n uintptr) { fd = n })
	return fd
}
