//go:build linux

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	bignum "math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newCertificate writes a key and its certificate, and returns what of the key
// no one else may have: bytes of its private part as they are in memory.
func newCertificate(t testing.TB, dir string, key crypto.Signer) (secret []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: bignum.NewInt(mathrand.Int64()), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		// Limbs are little-endian in memory.
		secret = k.Primes[0].Bytes()
		for i, j := 0, len(secret)-1; i < j; i, j = i+1, j-1 {
			secret[i], secret[j] = secret[j], secret[i]
		}
	case ed25519.PrivateKey:
		secret = k.Seed()
	}
	return secret
}

func ecdsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// startTLS starts a site with a certificate.
func startTLS(t *testing.T, key crypto.Signer, settings map[string]string) (s *site, secret []byte) {
	t.Helper()
	all := map[string]string{"tls_certificate": "SITE/cert.pem", "tls_key": "SITE/key.pem"}
	for k, v := range settings {
		all[k] = v
	}
	s = startSite(t, all, func(dir string) error { secret = newCertificate(t, dir, key); return nil })
	return s, secret
}

func (s *site) pool(t testing.TB) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(s.dir + "/cert.pem")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// Keys of each kind that TLS 1.2 and 1.3 know.
func tlsKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"rsa": rsaKey(t), "ecdsa": ecdsaKey(t), "ed25519": ed}
}

// Real clients, each up and down, in both versions of TLS, with each kind of key.
func TestTLSPrograms(t *testing.T) {
	t.Parallel()
	for name, key := range tlsKeys(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := startTLS(t, key, nil)
			// The certificate and what is sent; each program has a directory.
			write(t, s.alice+"/there", randomBytes(5<<20+7))
			write(t, s.alice+"/large", randomBytes(96<<20+1))
			local, large := s.alice+"/there", s.alice+"/large"
			host, port, _ := strings.Cut(s.address[0], ":")
			for _, v := range []string{"1.2", "1.3"} {
				dir := siteDir(t)
				run := func(name string, args ...string) string {
					t.Helper()
					out, err := program(t, dir, name, args...).CombinedOutput()
					if err != nil {
						t.Errorf("%s, TLS %s: %v\n%s", name, v, err, out)
					}
					return string(out)
				}
				curl := func(args ...string) {
					t.Helper()
					run("curl", append([]string{"-sS", "--ssl-reqd", "--cacert", s.dir + "/cert.pem", "--tlsv" + v, "--tls-max", v,
						"-u", "alice:" + password, "--connect-to", "localhost:" + port + ":" + host + ":" + port}, args...)...)
				}
				curl("-T", local, "ftp://localhost:"+port+"/curl"+v)
				curl("-o", "curl", "ftp://localhost:"+port+"/there")
				curl("-T", large, "ftp://localhost:"+port+"/large"+v)
				curl("-o", "large", "ftp://localhost:"+port+"/large"+v)
				run("python3", "-c", pythonTLS, host, port, password, s.dir+"/cert.pem", local, v)
				priority := "NORMAL:-VERS-ALL:+VERS-TLS" + v
				run("lftp", "-c", "set ssl:ca-file "+s.dir+"/cert.pem; set ssl:check-hostname no; set ssl:priority "+priority+
					"; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set net:max-retries 1;"+
					" open -u alice,'"+password+"' "+host+":"+port+"; put "+local+" -o lftp"+v+"; get there -o lftp; ls")
				for _, name := range []string{"curl", "python", "lftp"} {
					same(t, local, dir+"/"+name)
					same(t, local, s.alice+"/"+name+v)
				}
				same(t, large, dir+"/large")
				same(t, large, s.alice+"/large"+v)
				cmd := program(t, dir, "openssl", "s_client", "-starttls", "ftp", "-quiet", "-crlf", "-CAfile", s.dir+"/cert.pem",
					"-verify_return_error", "-tls"+strings.Replace(v, ".", "_", 1), "-connect", host+":"+port)
				in, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Second, func() { io.WriteString(in, "FEAT\nQUIT\n") })
				if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), " AUTH TLS") || !strings.Contains(string(out), "221 ") {
					t.Errorf("openssl, TLS %s: %v\n%s", v, err, out)
				}
			}
		})
	}
}

const pythonTLS = `
import ftplib, ssl, sys
host, port, password, ca, local, v = sys.argv[1:]
c = ssl.create_default_context(cafile=ca)
c.check_hostname = False
c.minimum_version = c.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[v]
f = ftplib.FTP_TLS(context=c)
f.connect(host, int(port))
f.login("alice", password)
f.prot_p()
f.storbinary("STOR python" + v, open(local, "rb"))
with open("python", "wb") as out:
    f.retrbinary("RETR there", out.write)
assert "there" in f.nlst()
assert f.retrlines("LIST", lambda l: None).startswith("226")
f.quit()
`

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
