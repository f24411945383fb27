package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"sync/atomic"

	"github.com/go-privsep/sallyport/privsep"
)

// A tlsClient asks the monitor for what a session's TLS takes.
type tlsClient struct {
	monitor *privsep.Worker
	control atomic.Bool // its connection's signature was asked for
}

// config is that of one session: its keys for tickets are nobody else's.
func (c *tlsClient) config(ctx context.Context) (*tls.Config, error) {
	r, err := TLSCertificate.Call(ctx, c.monitor, Ask{})
	if err != nil {
		return nil, err
	}
	certificate := tls.Certificate{}
	for block, rest := pem.Decode(r.Chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certificate.Certificate = append(certificate.Certificate, block.Bytes)
		}
	}
	if len(certificate.Certificate) == 0 {
		return nil, errors.New("no certificate")
	}
	if certificate.Leaf, err = x509.ParseCertificate(certificate.Certificate[0]); err != nil {
		return nil, err
	}
	certificate.PrivateKey = &remoteKey{c, certificate.Leaf.PublicKey}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		// Small records first are for who reads as they come; here a file does.
		DynamicRecordSizingDisabled: true,
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	config.SetSessionTicketKeys([][32]byte{key})
	return config, nil
}

// A remoteKey signs what TLS signs, with a key that is in another process.
type remoteKey struct {
	client *tlsClient
	public crypto.PublicKey
}

var _ crypto.MessageSigner = (*remoteKey)(nil)

func (k *remoteKey) Public() crypto.PublicKey { return k.public }

// Sign refuses: a digest could be anything's.
func (k *remoteKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("only whole messages are signed")
}

func (k *remoteKey) SignMessage(_ io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	_, pss := options.(*rsa.PSSOptions)
	request := SignRequest{Message: message, Hash: uint8(options.HashFunc()), PSS: pss}
	op := TLSSign
	if k.client.control.Swap(true) {
		op = TLSSignData
	}
	r, err := op.Call(context.Background(), k.client.monitor, request)
	return r.Signature, err
}
