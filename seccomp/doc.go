// Package seccomp turns promises into a system call filter and puts a process
// under it for good. [Compile] makes the filter, [Filter.Eval] asks it without
// installing it, [Filter.Install] installs it on every thread, and [Explain]
// tells an operator which promise a refused call would have needed.
//
// What it does not protect.
//
//   - A filter sees numbers, not what pointers point to. It does not judge
//     paths: that is Landlock's and the file system's part. It can't see where
//     sendmsg(2) sends: hand a worker connected sockets only.
//   - It does not judge descriptors. A promised call works on every descriptor
//     that the process holds: F_SETFL takes O_APPEND from a file that it was
//     handed with.
//   - The calls that remain reach into the kernel, and a bug behind one of them
//     is reachable too.
//   - It can't be changed once installed: even a second, stricter filter is
//     refused, because seccomp(2) itself is.
//
// No promise makes a socket, connects one, or binds one; executes, forks,
// traces or signals another process; mounts, changes credentials or namespaces;
// opens memory to execution; or uses ioctl, io_uring, bpf or keys. Who needs
// one of those asks the monitor.
//
// A filter holds for amd64 or arm64. It kills a process that calls by another
// architecture's convention (int 0x80 and x32 on amd64). Of calls that no promise
// keeps, a known one kills the process, all threads at once, and one that is
// newer than this package's table gets ENOSYS, so that fallbacks work.
//
// There is no word for "everything", and none may be added.
package seccomp
