//go:build linux

package main

// machineCalls are what only arm64 has: nothing.
func machineCalls() []callCase { return nil }
