// Package caps holds sets of Linux capabilities, drops them for good on every
// thread, and raises the few that a privileged process needs around just the
// call that needs them.
//
// What it does not protect. A capability that is permitted can be raised by
// any code in the process: [With] limits what a mistake does, not what injected
// code does. A process of uid 0 without one capability still owns root's files.
// Many capabilities equal root, one way or another: see [Cap.Risk] before
// leaving any to a process that reads untrusted bytes. Nothing here restricts
// system calls or paths.
//
// The kernel keeps capabilities for each thread, and the Go scheduler moves
// goroutines between threads; changing one thread and not the others is the
// mistake that this package exists to prevent. [Drop] and [Limit] act on all
// threads and read each of them back.
//
// A process calls [Limit] or [Drop] once, at its start, before other code
// changes the credentials of a thread on its own: if the kernel answers
// differently to two threads, the process dies. With cgo, threads that C code
// made are reached too.
//
// There is no word for "all capabilities", and none may be added: who needs
// one names it.
package caps
