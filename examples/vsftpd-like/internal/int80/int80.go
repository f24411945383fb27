// Package int80 makes a system call as a 32-bit program does, which on amd64
// has other numbers and another audit architecture. A filter that looks at the
// number alone takes such a call for another one. Only tests import it.
package int80
