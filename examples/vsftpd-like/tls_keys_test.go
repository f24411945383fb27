//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	bignum "math/big"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The key is in the memory of the one process that signs, also after handshakes,
// and in no other.
func TestOnlyTheKeeperHasTheKey(t *testing.T) {
	keys := tlsKeys(t)
	for _, kind := range []string{"rsa", "ed25519"} {
		s, secret := startTLS(t, keys[kind], nil)
		for _, version := range tlsVersions {
			config := s.client(t, version)
			c := secureLogin(t, s, config)
			if _, data, err := c.beginTLS("LIST", config); err != nil {
				t.Fatal(err)
			} else if _, err := io.Copy(io.Discard, data); err != nil {
				t.Fatal(err)
			}
			if err := c.expect("226"); err != nil {
				t.Fatal(err)
			}
		}
		if !holds(t, s.keeper(t, "keys"), secret) {
			t.Errorf("%s: control: the keeper does not hold the key; this test proves nothing", kind)
		}
		if holds(t, s.Pid, secret) {
			t.Errorf("%s: the monitor has the key", kind)
		}
		roles := map[string]int{}
		for _, w := range s.children() {
			roles[w.role]++
			if w.role != "keys" && holds(t, w.pid, secret) {
				t.Errorf("%s: a %s process has the key", kind, w.role)
			}
		}
		for _, role := range []string{"session", "files", "accounts"} {
			if roles[role] == 0 {
				t.Errorf("no process has the role %s: %v", role, roles)
			}
		}
		// And it has the key alone: no file, and no socket but to the monitor.
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.keeper(t, "keys")))
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", s.keeper(t, "keys"), fd.Name())); strings.HasSuffix(to, ".pem") {
				t.Errorf("%s: the keeper still has %s", kind, to)
			}
		}
	}
}

// TestCertificateReload: SIGHUP reads both files again. A pair that does not fit
// changes nothing, and the log says where and why. Who is there goes on.
func TestCertificateReload(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), nil)
	serial := func() string {
		t.Helper()
		c := connect(t, s.address[0], "")
		if err := c.secure(&tls.Config{InsecureSkipVerify: true}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.tls.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	config := s.client(t, tls.VersionTLS13)
	config.ClientSessionCache = nil // each transfer takes a signature
	old := secureLogin(t, s, config)
	key, err := os.ReadFile(s.dir + "/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	newCertificate(t, s.dir, rsaKey(t))
	for name, c := range map[string]struct {
		spoil, mend func() error
		want        string
	}{
		"another's key": {
			func() error {
				return errors.Join(os.Rename(s.dir+"/key.pem", s.dir+"/next"), os.WriteFile(s.dir+"/key.pem", key, 0o600))
			},
			func() error { return os.Rename(s.dir+"/next", s.dir+"/key.pem") },
			`file=.*/conf line=\d+ err=.*tls_key: .*/cert.pem with key .*/key.pem: .*its key`,
		},
		"no key": {
			func() error { return os.Rename(s.dir+"/key.pem", s.dir+"/next") },
			func() error { return os.Rename(s.dir+"/next", s.dir+"/key.pem") },
			`file=.*/conf line=\d+ err=.*tls_key: .*/key.pem: no such file`,
		},
		"a key for everybody": {
			func() error { return os.Chmod(s.dir+"/key.pem", 0o644) },
			func() error { return os.Chmod(s.dir+"/key.pem", 0o600) },
			`file=.*/conf line=\d+ err=.*tls_key: .*/key.pem: everybody may read .*chmod o=`,
		},
		"no PEM": {
			func() error {
				return errors.Join(os.Rename(s.dir+"/cert.pem", s.dir+"/next"), os.WriteFile(s.dir+"/cert.pem", nil, 0o600))
			},
			func() error { return os.Rename(s.dir+"/next", s.dir+"/cert.pem") },
			`file=.*/conf line=\d+ err=.*tls_key: .*/cert.pem with key .*PEM`,
		},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		from := len(s.output())
		s.hangUp(t, refused)
		if got := s.output()[from:]; !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%s: the log says %q, want %q", name, got, c.want)
		}
		if got := serial(); got != before {
			t.Errorf("%s: another certificate: %s", name, got)
		}
		if err := c.mend(); err != nil {
			t.Fatal(err)
		}
	}
	s.hangUp(t, reloaded)
	if after := serial(); after == before {
		t.Error("the old certificate, after a reload")
	}
	// A session of before goes on with the certificate that it began with.
	_, data, err := old.beginTLS("LIST", config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		t.Error(err)
	}
	if err := old.expect("226"); err != nil {
		t.Error(err)
	}
	old.Close()
	// With its last session the old keeper ends; the death of the other costs
	// nobody more than a handshake that is under way.
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		n := 0
		for _, w := range s.children() {
			if w.role == "keys" {
				n++
			}
		}
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d keepers of keys", n)
		}
	}
	if err := syscall.Kill(s.keeper(t, "keys"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		c := connect(t, s.address[0], "")
		if c.secure(s.client(t, tls.VersionTLS13)) == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no TLS any more")
		}
	}
}

// TestTLSMistakes: the server does not start, and says where and why.
func TestTLSMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		settings map[string]string
		want     string
	}{
		"no key":         {map[string]string{"tls_certificate": "SITE/cert.pem"}, `conf:\d+: tls_certificate and tls_key need each other`},
		"nothing there":  {map[string]string{"tls_certificate": "SITE/none", "tls_key": "SITE/none"}, `conf:\d+: tls_key: .*none: no such file`},
		"no certificate": {map[string]string{"require_tls_reuse": "yes"}, `conf:\d+: require_tls_reuse = yes needs`},
		"not required":   {map[string]string{"require_tls": "no"}, `conf:\d+: require_tls = no means nothing without`},
		"no path":        {map[string]string{"tls_key": "key.pem"}, `conf:\d+: tls_key.*absolute path`},
	} {
		s := layOut(t, c.settings)
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{stageName, s.dir, binary(t), "-config", s.dir + "/conf", "-listen", "127.0.0.1:0"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err == nil || !regexp.MustCompile(c.want).Match(out) {
			t.Errorf("%s: %v, %s; want %s", name, err, out, c.want)
		}
	}
}

// What a keeper reads is judged, each mistake by its file and with a remedy.
func TestKeysKeeper(t *testing.T) {
	dir := t.TempDir()
	load := func() (*keysKeeper, error) {
		var files []*os.File
		for _, name := range []string{"key.pem", "cert.pem"} {
			f, err := os.Open(dir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files = append(files, f)
		}
		k := new(keysKeeper)
		return k, k.load(&KeysConfig{"KEY", "CERT"}, files)
	}
	for kind, key := range tlsKeys(t) {
		newCertificate(t, dir, key)
		k, err := load()
		if err != nil {
			t.Fatal(kind, err)
		}
		// Each way that TLS has for the key, and no other.
		verify, exchange := certificateVerify(), serverKeyExchange()
		for _, hash := range []crypto.Hash{0, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			for _, pss := range []bool{false, true} {
				for name, r := range map[string]SignRequest{"1.3": verify, "1.2": exchange} {
					r.Hash, r.PSS = uint8(hash), pss
					want := kind == "rsa" && hash != 0 && (pss || name == "1.2") ||
						kind == "ecdsa" && hash != 0 && !pss || kind == "ed25519" && hash == 0 && !pss
					if err := r.Check(); err != nil {
						t.Fatal(err)
					}
					reply, err := k.sign(t.Context(), r)
					if (err == nil) != want || (len(reply.Signature) > 0) != want {
						t.Errorf("%s, TLS %s, %v, PSS %t: %d bytes, %v", kind, name, hash, pss, len(reply.Signature), err)
					}
					if err == nil && !verifies(key.Public(), &r, reply.Signature) {
						t.Errorf("%s, TLS %s, %v, PSS %t: the signature is wrong", kind, name, hash, pss)
					}
				}
			}
		}
	}
	if _, err := new(keysKeeper).sign(t.Context(), certificateVerify()); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("without a key: %v", err)
	}
	good, _ := os.ReadFile(dir + "/cert.pem")
	if err := os.WriteFile(dir+"/cert.pem", bytes.Repeat(good, 100), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "CERT: longer than 16384 bytes") {
		t.Errorf("a long chain: %v", err)
	}
}

func verifies(public crypto.PublicKey, r *SignRequest, signature []byte) bool {
	certificate := &x509.Certificate{PublicKey: public}
	hash := crypto.Hash(r.Hash)
	algorithm := map[crypto.Hash]x509.SignatureAlgorithm{0: x509.PureEd25519, crypto.SHA256: x509.ECDSAWithSHA256, crypto.SHA384: x509.ECDSAWithSHA384, crypto.SHA512: x509.ECDSAWithSHA512}[hash]
	if _, ok := public.(*rsa.PublicKey); ok {
		algorithm = map[crypto.Hash]x509.SignatureAlgorithm{crypto.SHA256: x509.SHA256WithRSA, crypto.SHA384: x509.SHA384WithRSA, crypto.SHA512: x509.SHA512WithRSA}[hash]
		if r.PSS {
			algorithm = map[crypto.Hash]x509.SignatureAlgorithm{crypto.SHA256: x509.SHA256WithRSAPSS, crypto.SHA384: x509.SHA384WithRSAPSS, crypto.SHA512: x509.SHA512WithRSAPSS}[hash]
		}
	}
	return certificate.CheckSignature(algorithm, r.Message, signature) == nil
}

// What is asked to be signed is a message of a TLS handshake, whole. A digest, a
// certificate, or what another protocol would take, is a violation.
func TestSignRequestCheck(t *testing.T) {
	digest := sha256.Sum256([]byte("x"))
	key := ecdsaKey(t)
	template := &x509.Certificate{SerialNumber: bignum.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	client := []byte(strings.Replace(verifyPrefix, "server", "client", 1))
	with := func(r SignRequest, change func(*SignRequest)) SignRequest {
		r.Message = bytes.Clone(r.Message)
		change(&r)
		return r
	}
	for name, r := range map[string]SignRequest{
		"nothing":                 {},
		"a digest":                {Message: digest[:], Hash: uint8(crypto.SHA256)},
		"a certificate":           {Message: der[:min(len(der), 400)], Hash: uint8(crypto.SHA256)},
		"a client's verify":       {Message: append(client, digest[:]...), Hash: uint8(crypto.SHA256)},
		"no transcript":           {Message: []byte(verifyPrefix)},
		"MD5":                     with(certificateVerify(), func(r *SignRequest) { r.Hash = uint8(crypto.MD5) }),
		"SHA-1":                   with(serverKeyExchange(), func(r *SignRequest) { r.Hash = uint8(crypto.SHA1) }),
		"hash 255":                with(certificateVerify(), func(r *SignRequest) { r.Hash = 255 }),
		"a byte more":             with(certificateVerify(), func(r *SignRequest) { r.Message = append(r.Message, 0) }),
		"a byte less":             with(serverKeyExchange(), func(r *SignRequest) { r.Message = r.Message[:len(r.Message)-1] }),
		"an explicit curve":       with(serverKeyExchange(), func(r *SignRequest) { r.Message[64] = 1 }),
		"an unknown curve":        with(serverKeyExchange(), func(r *SignRequest) { r.Message[66] = 22 }),
		"a compressed point":      with(serverKeyExchange(), func(r *SignRequest) { r.Message[67] = 33 }),
		"finite-field parameters": {Message: append(make([]byte, 64), bytes.Repeat([]byte{1, 0}, 100)...), Hash: uint8(crypto.SHA256)},
	} {
		if r.Check() == nil {
			t.Errorf("%s: may be signed", name)
		}
	}
	for name, r := range map[string]SignRequest{"1.3": certificateVerify(), "1.2": serverKeyExchange()} {
		if err := r.Check(); err != nil {
			t.Errorf("TLS %s: %v", name, err)
		}
	}
}

// FuzzSignRequest: whatever passes is of one of two forms.
func FuzzSignRequest(f *testing.F) {
	for _, r := range []SignRequest{certificateVerify(), serverKeyExchange(), {}} {
		f.Add(r.Message, r.Hash, r.PSS)
	}
	f.Fuzz(func(t *testing.T, message []byte, hash uint8, pss bool) {
		r := SignRequest{message, hash, pss}
		if r.Check() != nil {
			return
		}
		transcript := regexp.MustCompile(`(?s)^ {64}TLS 1\.3, server CertificateVerify\x00(.{32}|.{48})$`)
		exchange := len(message) > 68 && message[64] == 3 && message[65] == 0 && len(message) == 68+int(message[67])
		if !transcript.Match(latin1(message)) && !exchange || hash == uint8(crypto.SHA1) || hash == uint8(crypto.MD5) {
			t.Errorf("%q with hash %d may be signed", message, hash)
		}
	})
}

// latin1 is b with a rune for each byte.
func latin1(b []byte) []byte {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return []byte(string(runes))
}

// TestSigningGainsNothing: a session worker that was taken over gets one signature
// for each data connection that the monitor made, however often it asks.
func TestSigningGainsNothing(t *testing.T) {
	dir := t.TempDir()
	newCertificate(t, dir, ecdsaKey(t))
	c, done := clients(t)()
	defer done()
	k, err := c.server.keepKeys(dir+"/key.pem", dir+"/cert.pem")
	if err != nil {
		t.Fatal(err)
	}
	defer k.keeper.Close()
	with := *c
	with.server = &server{instance: c.server.instance, config: c.server.config, settings: c.server.settings, accounts: c.server.accounts, keys: k}
	u := &user{client: &with}
	for range 100_000 {
		if r, err := u.tlsSignData(t.Context(), certificateVerify()); !errors.Is(err, syscall.EPERM) || r.Signature != nil {
			t.Fatalf("without a data connection: %v", err)
		}
	}
	u.unsigned = true // as a data connection leaves it
	if r, err := u.tlsSignData(t.Context(), certificateVerify()); err != nil || len(r.Signature) == 0 {
		t.Errorf("control: for a data connection: %v", err)
	}
	if _, err := u.tlsSignData(t.Context(), certificateVerify()); !errors.Is(err, syscall.EPERM) {
		t.Errorf("twice: %v", err)
	}
	// What its keeper says against a request is no errno for the worker.
	if _, err := with.tlsSign(t.Context(), SignRequest{Message: certificateVerify().Message}); err == nil || errors.As(err, new(syscall.Errno)) {
		t.Errorf("refused by the keeper: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := with.tlsCertificate(ctx, Ask{}); err == nil {
		t.Error("answered after its end")
	}
}
