package caps

import "strconv"

//go:generate go run ./gen

// Cap is one capability. The zero Cap is none of them, and no Set has it; it
// is not Chown, which is the kernel's number 0.
type Cap uint8

// maxCap is the last that a kernel's 64-bit sets have room for.
const maxCap Cap = 64

// Number returns the kernel's number, from 0; it is -1 for the zero Cap.
func (c Cap) Number() int { return int(c) - 1 }

// String returns the kernel's name, such as "cap_net_bind_service". A
// capability newer than this package is its number, as in libcap's texts.
func (c Cap) String() string {
	switch {
	case c == 0 || c > maxCap:
		return "invalid capability"
	case int(c) > len(names):
		return strconv.Itoa(c.Number())
	}
	return names[c.Number()]
}
