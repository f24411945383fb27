package int80

// Call makes a system call without arguments and returns the kernel's answer,
// an error as a negative number. A kernel without CONFIG_IA32_EMULATION
// answers with SIGSEGV.
func Call(number uint32) int32
