package account

import (
	"strings"
	"testing"
)

// Made by libxcrypt 4.4.33 (Debian 12) for "correct horse", but the argon2
// one, which is the reference implementation's own test vector.
const (
	hashYescryptFast = "$y$j75$F5Jx5fExrKuPp53xLKQ..1$aEFV0VcEI5Jx.rzUhLbfRgipTKSbuNF0ldHPkDpnco3"
	hashYescrypt     = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$zwtVrjrUCmXcyLTs6oxLTQlzifSUkF8RHJ./tK5KU79"
	hashSHA512       = "$6$rounds=1000$saltsalt$4GMtaIz3E1AdDi2SmCokEW0ehi.HdxNDcL3fGE1XXuzvo6kbx7UOloZKONqEk5H3JrQA4NOfU8BmqFPrpGqwA1"
	hashSHA512Plain  = "$6$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0"
	hashSHA256       = "$5$rounds=1000$saltsalt$R6e4P8ccT9iMqkYg7Z8YtpId/lfsIfnuPkp8WXposU8"
	hashBcrypt       = "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"
	hashBcryptY      = "$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2"
	hashArgon2       = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	hashMD5          = "$1$saltsalt$NuzA7WTAelpl95xgBGWN60"
)

const password = "correct horse"

func TestSecretKnowsTheSystemsHashes(t *testing.T) {
	for _, c := range []struct{ hash, password string }{
		{hashYescryptFast, password},
		{hashYescrypt, password},
		{hashSHA512, password},
		{hashSHA512Plain, password},
		{hashSHA256, password},
		{hashBcrypt, password},
		{hashBcryptY, password},
		{"$2b$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe", strings.Repeat("a", 100)}, // crypt(3) takes 72
		{hashArgon2, "password"},
	} {
		s, err := parseSecret(c.hash)
		if err != nil {
			t.Errorf("%s: %v", c.hash, err)
			continue
		}
		if !s.verify(c.password).proves(s) {
			t.Errorf("%s: the right password is refused", c.hash)
		}
		for _, wrong := range []string{"", "x", c.password[:len(c.password)/2], strings.ToUpper(c.password)} {
			if s.verify(wrong).proves(s) {
				t.Errorf("%s: %q is taken", c.hash, wrong)
			}
		}
	}
}

func TestVerdictIsForOneSecret(t *testing.T) {
	a, b := must(parseSecret(hashBcrypt)), must(parseSecret(hashSHA256))
	if (verdict{}).proves(a) || (verdict{}).proves(nil) || a.verify(password).proves(b) || a.verify(password).proves(nil) {
		t.Error("a verdict proves what was not checked")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Each would cost the monitor its memory or its time, or be met by passwords
// that are not the user's.
func TestSecretRefuses(t *testing.T) {
	key43, key86 := strings.Repeat("a", 43), strings.Repeat("a", 86)
	for _, c := range []struct{ why, hash string }{
		{"empty", ""},
		{"star", "*"},
		{"locked", "!" + hashYescrypt},
		{"plain text", "correct horse"},
		{"des", "abJnggxhB/yWI"},
		{"md5", hashMD5},
		{"gost yescrypt", "$gy$j9T$F5Jx5fExrKuPp53xLKQ..1$" + key43},
		{"yescrypt 1 GiB", "$y$jFT$F5Jx5fExrKuPp53xLKQ..1$" + key43},
		{"yescrypt shift of 64", "$y$jzz$F5Jx5fExrKuPp53xLKQ..1$" + key43},
		{"yescrypt bad digit", "$y$j!T$F5Jx5fExrKuPp53xLKQ..1$" + key43},
		{"yescrypt N of 2", "$y$j.T$F5Jx5fExrKuPp53xLKQ..1$" + key43},
		{"yescrypt key of a byte", "$y$j75$F5Jx5fExrKuPp53xLKQ..1$aE"},
		{"yescrypt no key", "$y$j75$F5Jx5fExrKuPp53xLKQ..1$"},
		{"yescrypt no salt field", "$y$j75$" + key43},
		{"yescrypt bad salt length", "$y$j75$/$" + key43},
		{"sha512 million rounds", "$6$rounds=999999999$saltsalt$" + key86},
		{"sha512 no rounds", "$6$rounds=0$saltsalt$" + key86},
		{"sha512 leading zero", "$6$rounds=01000$saltsalt$" + key86},
		{"sha512 negative", "$6$rounds=-1$saltsalt$" + key86},
		{"sha512 unknown option", "$6$round=1000$saltsalt$" + key86},
		{"sha512 long salt", "$6$saltsaltsaltsalts$" + key86},
		{"sha512 short key", "$6$saltsalt$" + key86[1:]},
		{"sha256 with sha512's key", "$5$saltsalt$" + key86},
		{"bcrypt cost 31", "$2b$31$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"},
		{"bcrypt cost 3", "$2b$03$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"},
		{"bcrypt signed cost", "$2b$+4$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"},
		{"bcrypt 2x", "$2x$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"},
		{"bcrypt short", "$2b$04$abcdefghijklmnopqrstuu"},
		{"argon2 4 TiB", "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
		{"argon2 passes", "$argon2id$v=19$m=65536,t=100000,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
		{"argon2 lanes", "$argon2id$v=19$m=65536,t=1,p=16777215$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
		{"argon2 no passes", "$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
		{"argon2 missing parameter", "$argon2id$v=19$m=65536,t=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
		{"argon2 parameter twice", "$argon2id$v=19$m=65536,t=1,t=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
		{"argon2 short key", "$argon2id$v=19$m=65536,t=1,p=1$c29tZXNhbHQ$CTFh"},
		{"argon2 line ends in the key", "$argon2id$v=19$m=10,t=1,p=1$c29tZXNhbHQ$000000000000000\r\r00000"},
		{"argon2 old version", "$argon2id$v=16$m=65536,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
		{"argon2 without version", "$argon2id$m=65536,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
	} {
		if _, err := parseSecret(c.hash); err == nil {
			t.Errorf("%s: %s is taken, want an error", c.why, c.hash)
		}
	}
}

func FuzzSecret(f *testing.F) {
	for _, h := range []string{hashYescryptFast, hashSHA512, hashSHA512Plain, hashSHA256, hashBcrypt, hashArgon2, hashMD5, "", "*", "!$6$a$b", "$", "$$", "$y$", "$y$jzz$$"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, hash string) {
		s, err := parseSecret(hash)
		if (s == nil) == (err == nil) {
			t.Fatalf("got a secret %v with error %v, want exactly one", s, err)
		}
		if s != nil && len(s.digest.Key()) < 16 {
			t.Fatalf("%q: key of %d bytes, want 16 at least", hash, len(s.digest.Key()))
		}
	})
}
