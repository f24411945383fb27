// Package sys holds every call into the kernel that the standard library does
// not offer. It is the only importer of golang.org/x/sys/unix and of unsafe in
// the library, so that a reviewer finds all of the danger in one folder.
//
// A function here is a system call with Go types and nothing more: no policy,
// no retries but EINTR, no logging. Off Linux each returns
// errors.ErrUnsupported.
package sys
