package account

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/scrypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
)

// What one password check may cost. A hash names its own cost, and the decoder
// believes it: "$argon2id$...m=4294967295" would make the monitor allocate 4 TiB.
const (
	maxMemory     = 128 << 20 // bytes, yescrypt and argon2
	maxWork       = 1 << 30   // bytes touched: argon2's memory times passes
	maxSHARounds  = 1_000_000 // about 0.5 s
	minSHARounds  = 1_000     // crypt(5); libcrypt would raise a lower one
	maxBcryptCost = 14        // about 1 s
	minBcryptCost = 4         // crypt(5)
	maxLanes      = 16        // argon2: a goroutine each
)

// b64 is the alphabet of crypt(5), in its order of value.
const b64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// base64Alphabet is that of RFC 4648, in which argon2 hashes are written.
const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

var errScheme = errors.New("not a yescrypt, sha512crypt, sha256crypt, bcrypt or argon2 hash")

// secret is a password hash that can be checked at a bounded cost.
type secret struct{ digest algorithm.Digest }

// verdict is what a check proved: a password for this one secret. The zero
// verdict proves nothing.
type verdict struct{ of *secret }

// proves reports whether v was given for s.
func (v verdict) proves(s *secret) bool { return s != nil && v.of == s }

// verify is slow by design: 5 ms to 1 s.
func (s *secret) verify(password string) verdict {
	if ok, err := s.digest.MatchAdvanced(password); err != nil || !ok {
		return verdict{}
	}
	return verdict{of: s}
}

// parseSecret accepts only the whole form of each scheme. The library's
// decoders would take a key of one byte, and then one password in 256 matches.
func parseSecret(hash string) (*secret, error) {
	scheme, rest, ok := strings.Cut(strings.TrimPrefix(hash, "$"), "$")
	if !ok || !strings.HasPrefix(hash, "$") {
		return nil, errScheme
	}
	f := strings.Split(rest, "$")
	var decode func(string) (algorithm.Digest, error)
	var err error
	switch scheme {
	case "y":
		decode, err = scrypt.DecodeVariant(scrypt.VariantYescrypt), checkYescrypt(f)
	case "6":
		decode, err = shacrypt.DecodeVariant(shacrypt.VariantSHA512), checkSHA(f, 86)
	case "5":
		decode, err = shacrypt.DecodeVariant(shacrypt.VariantSHA256), checkSHA(f, 43)
	case "2a", "2b", "2y":
		decode, err = bcrypt.DecodeVariant(bcrypt.VariantStandard), checkBcrypt(f)
	case "argon2id", "argon2i", "argon2d":
		decode, err = argon2.Decode, checkArgon2(f)
	default:
		return nil, errScheme
	}
	if err != nil {
		return nil, err
	}
	digest, err := decode(hash)
	if err != nil {
		return nil, errors.New("hash does not decode")
	}
	if scheme == "y" && digest.Encode() != hash {
		return nil, errors.New("yescrypt hash is not in its one canonical form")
	}
	return &secret{digest}, nil
}

// checkYescrypt: j, log2(N)-1, r-1; salt; 32 bytes of key. Flavour j is the
// only one that Debian's libcrypt makes.
func checkYescrypt(f []string) error {
	if len(f) != 3 || len(f[0]) != 3 || f[0][0] != 'j' || !only(f[1]+f[2], b64) || len(f[1]) > 86 || len(f[2]) != 43 {
		return errors.New("malformed yescrypt hash")
	}
	ln, r := strings.IndexByte(b64, f[0][1])+1, strings.IndexByte(b64, f[0][2])+1
	if ln < 10 || ln > 18 || r < 1 || r > 32 || 128*r<<ln > maxMemory {
		return fmt.Errorf("yescrypt parameters out of range: at most %d MiB", maxMemory>>20)
	}
	return nil
}

// checkSHA: an optional "rounds=N", salt, key.
func checkSHA(f []string, key int) error {
	if len(f) == 3 {
		n, ok := strings.CutPrefix(f[0], "rounds=")
		if v, good := number(n, maxSHARounds); !ok || !good || v < minSHARounds {
			return fmt.Errorf("rounds out of range %d to %d", minSHARounds, maxSHARounds)
		}
		f = f[1:]
	}
	if len(f) != 2 || len(f[0]) > 16 || len(f[1]) != key || !only(f[0]+f[1], b64) {
		return errors.New("malformed sha-crypt hash")
	}
	return nil
}

// checkBcrypt: two digits of cost, 22 characters of salt, 31 of key. 2x is
// left out: it is the sign of a broken implementation.
func checkBcrypt(f []string) error {
	if len(f) != 2 || len(f[0]) != 2 || len(f[1]) != 53 || !only(f[1], b64) {
		return errors.New("malformed bcrypt hash")
	}
	if cost, err := strconv.Atoi(f[0]); err != nil || !only(f[0], "0123456789") || cost < minBcryptCost || cost > maxBcryptCost {
		return fmt.Errorf("bcrypt cost out of range %d to %d", minBcryptCost, maxBcryptCost)
	}
	return nil
}

// checkArgon2: version, then m (KiB), t, p in this order, salt, key.
func checkArgon2(f []string) error {
	// base64 decoders skip line ends, so that a key of 22 characters could be
	// shorter than its length says.
	if len(f) != 4 || f[0] != "v=19" || !only(f[2]+f[3], base64Alphabet) || len(f[2]) < 11 || len(f[2]) > 86 || len(f[3]) < 22 || len(f[3]) > 86 {
		return errors.New("malformed argon2 hash")
	}
	var v [3]uint64
	params := strings.Split(f[1], ",")
	for i, p := range params {
		n, ok := "", false
		if len(params) == 3 {
			n, ok = strings.CutPrefix(p, "mtp"[i:i+1]+"=")
		}
		if v[i%3], ok = numberIf(ok, n, maxMemory>>10); !ok || v[i%3] == 0 {
			return fmt.Errorf("argon2 parameters malformed or over %d MiB", maxMemory>>20)
		}
	}
	if m, t, p := v[0], v[1], v[2]; p > maxLanes || m < 8*p || m<<10*t > maxWork {
		return fmt.Errorf("argon2 parameters out of range: at most %d lanes, memory times passes at most %d MiB", maxLanes, maxWork>>20)
	}
	return nil
}

// number reads a decimal without sign or leading zeros.
func number(s string, limit uint64) (uint64, bool) {
	v, err := strconv.ParseUint(s, 10, 64)
	return v, err == nil && v <= limit && strconv.FormatUint(v, 10) == s
}

func numberIf(ok bool, s string, limit uint64) (uint64, bool) {
	if !ok {
		return 0, false
	}
	return number(s, limit)
}

// only reports whether s has no byte outside alphabet.
func only(s, alphabet string) bool {
	return strings.Trim(s, alphabet) == ""
}
