package account

import "strings"

// MaxName and MaxPassword bound what is looked at, in bytes.
const (
	MaxName     = 64
	MaxPassword = 255
)

// ValidName reports whether name has the form of a login name. It says nothing
// about whether the name exists.
func ValidName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case i > 0 && (c == '.' || c == '-' || c == '@' || c == '+'):
		default:
			return false
		}
	}
	return 0 < len(name) && len(name) <= MaxName
}

// ValidPassword reports whether a password can be checked at all. A NUL would
// end it early in crypt(3), so that two passwords would be one.
func ValidPassword(password string) bool {
	return len(password) <= MaxPassword && strings.IndexByte(password, 0) < 0
}
