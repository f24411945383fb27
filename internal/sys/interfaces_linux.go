package sys

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// OnlyLoopback reports whether this process's network namespace leads nowhere: no
// interface in it is up but loopback. Others that are down, such as the kernel's
// own tunnels, are no way out without CAP_NET_ADMIN.
func OnlyLoopback() (bool, error) {
	text, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return false, err
	}
	// Of any family: the flags are the namespace's.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	for line := range strings.Lines(string(text)) {
		name, _, found := strings.Cut(strings.TrimSpace(line), ":")
		if !found {
			continue // the head
		}
		about, err := unix.NewIfreq(name)
		if err != nil {
			return false, err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, about); err != nil {
			return false, os.NewSyscallError("ioctl", err)
		}
		if flags := about.Uint16(); flags&unix.IFF_UP != 0 && flags&unix.IFF_LOOPBACK == 0 {
			return false, nil
		}
	}
	return true, nil
}
