package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/go-privsep/sallyport/privsep"
)

var keysRole = privsep.Role{Name: "keys", Main: keysMain, Check: noPaths}

// KeysConfig is what the keys keeper is told beside its two files.
type KeysConfig struct {
	Key         string `privsep:"max=1024"` // what to call the files
	Certificate string `privsep:"max=1024"`
}

// keysMain reads the key and its certificate, gives up both files, and signs.
func keysMain(ctx context.Context, w *privsep.Worker) error {
	var config KeysConfig
	if err := w.Message(&config); err != nil {
		return err
	}
	runtime.GOMAXPROCS(2) // a signature of RSA takes a millisecond
	keeper := new(keysKeeper)
	keeper.wrong = keeper.load(&config, w.Opened())
	for _, f := range w.Opened() {
		f.Close()
	}
	_, serving := newKeysPolicy()
	return privsep.ServeConn(ctx, serving, keeper, w.Files()[0])
}

// newKeysPolicy is what the monitor may ask. testdata/keys-policy.txt is what it
// prints.
func newKeysPolicy() (*privsep.Policy, *privsep.Phase[keysKeeper]) {
	policy := new(privsep.Policy)
	serving := privsep.NewPhase(policy, "serving", func(*keysKeeper) privsep.Launch { return privsep.Launch{} })
	privsep.Permit(serving, KeeperCertificate, (*keysKeeper).certificate)
	privsep.Permit(serving, KeeperSign, (*keysKeeper).sign)
	return policy, serving
}

// A keysKeeper has the key.
type keysKeeper struct {
	key   crypto.Signer
	chain []byte
	wrong error
}

func (k *keysKeeper) load(config *KeysConfig, files []*os.File) error {
	info, err := files[0].Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("%s: everybody may read or write the key (mode %04o): chmod o=", config.Key, mode)
	}
	const most = 16384 // bytes of either: CertificateReply's bound
	var text [2][]byte
	for i, f := range files {
		if text[i], err = io.ReadAll(io.LimitReader(f, most+1)); err != nil {
			return err
		}
		if len(text[i]) > most {
			return fmt.Errorf("%s: longer than %d bytes: leave in what clients need", []string{config.Key, config.Certificate}[i], most)
		}
	}
	pair, err := tls.X509KeyPair(text[1], text[0])
	clear(text[0])
	if err != nil {
		return fmt.Errorf("%s with key %s: %w: give a chain of certificates in PEM, the server's own first, and its key", config.Certificate, config.Key, err)
	}
	switch key := pair.PrivateKey.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() > 8192 {
			return fmt.Errorf("%s: RSA key of more than 8192 bits", config.Key)
		}
		k.key = key
	case *ecdsa.PrivateKey:
		k.key = key
	case ed25519.PrivateKey:
		k.key = key
	default:
		return fmt.Errorf("%s: not an RSA, ECDSA or Ed25519 key", config.Key)
	}
	k.chain = text[1]
	return nil
}

func (k *keysKeeper) certificate(context.Context, Ask) (CertificateReply, error) {
	if k.wrong != nil {
		return CertificateReply{Mistakes: []string{short(k.wrong.Error())}}, nil
	}
	return CertificateReply{Chain: k.chain}, nil
}

// sign signs a message whose form was judged, in a way that TLS knows for the
// key: with PSS alone under TLS 1.3.
func (k *keysKeeper) sign(_ context.Context, r SignRequest) (SignReply, error) {
	hash := crypto.Hash(r.Hash)
	var options crypto.SignerOpts = hash
	ok := hash != 0
	switch k.key.(type) {
	case *rsa.PrivateKey:
		ok = ok && (r.PSS || !strings.HasPrefix(string(r.Message), verifyPrefix))
		if r.PSS {
			options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
	case *ecdsa.PrivateKey:
		ok = ok && !r.PSS
	case ed25519.PrivateKey:
		ok = hash == 0 && !r.PSS
	default: // there is no key
		ok = false
	}
	if !ok {
		return SignReply{}, syscall.EINVAL
	}
	signature, err := crypto.SignMessage(k.key, rand.Reader, r.Message, options)
	return SignReply{signature}, err
}
