package seccomp

import (
	"fmt"
	"math/bits"
	"strings"
)

// Promises are the groups of system calls that a process keeps. They are
// joined with |. The zero value keeps what the Go runtime itself needs (memory
// that is not executable, threads, timers, signals to itself, the poller) and
// what it takes to use descriptors that the process holds or receives: read,
// write, close, pread, fstat, and sendmsg and recvmsg with files. Opening a file
// just to read it fails with EACCES, because package time and glibc try to at
// moments of their own; opening it in another way kills.
type Promises uint64

const (
	// Streams keeps what connected sockets need that were handed in:
	// their own addresses, shutdown, send and recv without an address, writev,
	// and these options: buffer sizes, keep-alive, TCP_NODELAY,
	// TCP_CORK, TCP_USER_TIMEOUT; to read, SO_ERROR and TCP_INFO.
	// net.FileConn needs it.
	Streams Promises = 1 << iota

	// Accept keeps accept4, on listening sockets that were handed in.
	// net.FileListener needs it together with Streams.
	Accept

	// Transfer keeps what moves bytes within the kernel: sendfile, splice
	// with the pipes it needs, and copy_file_range. Without it io.Copy falls
	// back on read and write.
	Transfer

	// Files keeps what changes the position and content of regular files
	// that are open already: lseek, pwrite, ftruncate, fallocate, fsync,
	// fdatasync, fadvise and flock. The descriptor must allow it, too.
	Files

	// ReadPaths keeps opening files and directories to read, listing,
	// stat, access, readlink and getcwd. Which paths, Landlock and the file
	// system decide.
	ReadPaths

	// WritePaths keeps opening files to write and creating them, mkdir,
	// unlink, rename, truncate, and setting times and modes. Set-user-ID,
	// set-group-ID and sticky bits can't be set. Links, devices, FIFOs and
	// owners are not in it, and looking things up takes ReadPaths.
	WritePaths

	end // one beyond the last
)

var promiseNames = [...]string{"Streams", "Accept", "Transfer", "Files", "ReadPaths", "WritePaths"}

// String returns the names joined with |, or "none".
func (p Promises) String() string {
	var names []string
	for rest := p; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros64(uint64(rest)); i < len(promiseNames) {
			names = append(names, promiseNames[i])
		} else {
			names = append(names, fmt.Sprintf("Promises(%#x)", uint64(1)<<i))
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, "|")
}
