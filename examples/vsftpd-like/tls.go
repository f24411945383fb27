package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// What the monitor asks the keys keeper, which alone has the key, and which
// nobody else can ask.
var (
	KeeperCertificate = privsep.Op[Ask, CertificateReply]{Name: "certificate", Calls: privsep.Unlimited, Size: 32 << 10}
	KeeperSign        = privsep.Op[SignRequest, SignReply]{Name: "sign", Calls: privsep.Unlimited, Timeout: 5 * time.Second, Parallel: true}
)

type ChainReply struct {
	Chain []byte `privsep:"max=16384"`
}

type CertificateReply struct {
	Chain    []byte   `privsep:"max=16384"`
	Mistakes []string `privsep:"max=4,each=500"`
}

// A SignRequest is a message that TLS has a server sign, whole: what is signed
// can be nothing else.
type SignRequest struct {
	Message []byte `privsep:"max=400"`
	Hash    uint8  // a crypto.Hash; 0: the key has its own
	PSS     bool
}

type SignReply struct {
	Signature []byte `privsep:"max=1024"`
}

// Check judges the message. It is the CertificateVerify of TLS 1.3 (RFC 8446,
// section 4.4.3) or the ServerKeyExchange of TLS 1.2 (RFC 8422, section 5.4) with
// one of the named curves. The former begins with 64 spaces and the words, so that
// no message is both, and neither is anything that another protocol signs.
func (r *SignRequest) Check() error {
	switch crypto.Hash(r.Hash) {
	case 0, crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return errors.New("no hash of TLS 1.2 or 1.3")
	}
	if rest, ok := strings.CutPrefix(string(r.Message), verifyPrefix); ok {
		if len(rest) != 32 && len(rest) != 48 {
			return errors.New("CertificateVerify without a transcript's hash")
		}
		return nil
	}
	const randoms, head = 64, 4 // client's and server's; type, curve and length
	m := r.Message
	if len(m) < randoms+head || m[randoms] != 3 {
		return errors.New("no message that TLS signs")
	}
	m = m[randoms+1:]
	point, ok := map[uint16]int{23: 65, 24: 97, 25: 133, 29: 32}[uint16(m[0])<<8|uint16(m[1])]
	if !ok || int(m[2]) != point || len(m) != 3+point || point != 32 && m[3] != 4 {
		return errors.New("ServerKeyExchange without a point of a named curve")
	}
	return nil
}

var verifyPrefix = strings.Repeat(" ", 64) + "TLS 1.3, server CertificateVerify\x00"

// keys is the keeper of the TLS key, and of its certificate.
type keys struct {
	keeper *privsep.Keeper
	launch privsep.Launch
}

// keepKeys starts the keeper, which reads the key and has no file afterwards.
func (i *instance) keepKeys(key, certificate string) (*keys, error) {
	k := &keys{launch: privsep.Launch{
		Role:    &keysRole,
		Sandbox: privsep.Sandbox{Open: []string{key, certificate}, Without: i.without},
		Message: &KeysConfig{key, certificate},
	}}
	err := missing(key, certificate)
	if err != nil {
		return nil, err
	}
	if k.keeper, err = i.monitor.Keep(func() (privsep.Launch, error) { return k.launch, nil }); err != nil {
		return nil, err
	}
	if _, err = k.certificate(context.Background()); err != nil {
		k.keeper.Close()
		return nil, err
	}
	return k, nil
}

// certificate asks the keeper each time: one that had to be started again has
// read both files again.
func (k *keys) certificate(ctx context.Context) ([]byte, error) {
	r, err := KeeperCertificate.Call(ctx, k.keeper, Ask{})
	if err == nil && len(r.Mistakes) > 0 {
		err = errors.New(strings.Join(r.Mistakes, "\n"))
	}
	return r.Chain, err
}

var errNoTLS = errors.New("no TLS here")

func (c *client) tlsCertificate(ctx context.Context, _ Ask) (ChainReply, error) {
	if c.server.keys == nil {
		return ChainReply{}, errNoTLS
	}
	chain, err := c.server.keys.certificate(ctx)
	if err != nil {
		return ChainReply{}, fmt.Errorf("keys: %v", err) // no errno of the keeper's
	}
	return ChainReply{chain}, nil
}

func (c *client) tlsSign(ctx context.Context, r SignRequest) (SignReply, error) {
	if c.server.keys == nil {
		return SignReply{}, errNoTLS
	}
	reply, err := KeeperSign.Call(ctx, c.server.keys.keeper, r)
	if err != nil {
		return SignReply{}, fmt.Errorf("keys: %v", err) // no errno of the keeper's
	}
	return reply, nil
}

// tlsSignData signs once for each data connection that the monitor made.
func (u *user) tlsSignData(ctx context.Context, r SignRequest) (SignReply, error) {
	if !u.unsigned {
		return SignReply{}, syscall.EPERM
	}
	u.unsigned = false
	return u.tlsSign(ctx, r)
}
