package transfer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func serverConfig(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, SessionTicketsDisabled: true}
}

// secured are the two ends of a connection under TLS. Tests have no name to
// check.
func secured(t testing.TB, version uint16) (m *Mover, server *os.File, client *tls.Conn, raw *net.TCPConn) {
	t.Helper()
	server, raw = connected(t)
	client = tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	s, err := Secured(t.Context(), server, serverConfig(t))
	if err := errors.Join(err, <-shaken); err != nil {
		t.Fatal(err)
	}
	return &Mover{Secure: s}, server, client, raw
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func TestSecure(t *testing.T) {
	for _, version := range versions {
		for _, size := range sizes {
			want := content(size)
			m, server, client, _ := secured(t, version)
			got := make(chan []byte)
			go func() {
				b, err := io.ReadAll(client)
				if err != nil {
					t.Error(err) // no close_notify
				}
				got <- b
			}()
			n, err := m.Send(t.Context(), server, scratch(t, want), 0, int64(size))
			if err != nil || n != int64(size) {
				t.Fatalf("size %d: sent %d, %v", size, n, err)
			}
			if err := m.Finish(t.Context(), server); err != nil {
				t.Fatal(err)
			}
			if b := <-got; !bytes.Equal(b, want) {
				t.Errorf("size %d: the client got %d other bytes", size, len(b))
			}

			m, server, client, raw := secured(t, version)
			go func() {
				_, err := client.Write(want)
				if err := errors.Join(err, client.CloseWrite(), raw.Close()); err != nil {
					t.Error(err)
				}
			}()
			dst := scratch(t, nil)
			if n, err = m.Receive(t.Context(), dst, server); err != nil || n != int64(size) {
				t.Fatalf("size %d: received %d, %v", size, n, err)
			}
			if b, _ := io.ReadAll(io.NewSectionReader(dst, 0, 1<<30)); !bytes.Equal(b, want) {
				t.Errorf("size %d: the file has %d other bytes", size, len(b))
			}
		}
	}
}

// A client that knows the size leaves once it has the content. Its kernel then
// answers close_notify, which nobody reads, with a reset. Whoever leaves with a
// word, or after a while, has acknowledged the content by then.
func TestSecureFinishAfterReset(t *testing.T) {
	resets := 0
	for i := range 80 {
		m, server, client, raw := secured(t, versions[i%2])
		const size = 300_000
		left := make(chan struct{})
		go func() {
			defer close(left)
			if _, err := io.ReadFull(client, make([]byte, size)); err != nil {
				t.Error(err)
			}
			if i%4 < 2 {
				time.Sleep(200 * time.Millisecond) // no kernel waits for so long
				raw.SetLinger(0)
				raw.Close()
			} else {
				client.Close()
			}
		}()
		if _, err := m.Send(t.Context(), server, scratch(t, content(size)), 0, size); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			<-left // it was there before close_notify
		}
		if i >= 60 { // the control: without a look at what was acknowledged
			raw, err := server.SyscallConn()
			if err == nil {
				err = errors.Join(m.Secure.CloseWrite(), m.finish(t.Context(), server, raw))
			}
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
				resets++
			}
		} else if err := m.Finish(t.Context(), server); err != nil {
			t.Fatalf("try %d: %v", i, err)
		}
		<-left
	}
	if resets == 0 {
		t.Error("control: no connection is reset")
	}
}

// The control of the test above: what was not acknowledged is not complete.
func TestSecureFinishNotAll(t *testing.T) {
	for _, version := range versions {
		m, server, client, raw := secured(t, version)
		sent := make(chan struct{})
		go func() {
			client.Read(make([]byte, 1000))
			<-sent
			raw.SetLinger(0)
			raw.Close()
		}()
		raw.SetReadBuffer(16 << 10)
		size := int64(256 << 10)
		_, err := m.Send(t.Context(), server, scratch(t, content(int(size))), 0, size)
		close(sent)
		if err == nil {
			err = m.Finish(t.Context(), server)
		}
		var e *Error
		if !errors.As(err, &e) || !e.Network {
			t.Errorf("got %v", err)
		}
	}
}

// Whoever can send a FIN must not be able to call an upload complete.
func TestCutSecureUpload(t *testing.T) {
	for _, version := range versions {
		for _, size := range []int{0, 1, 16 << 10, 1 << 20} {
			m, server, client, raw := secured(t, version)
			go func() {
				client.Write(content(size))
				raw.CloseWrite()
			}()
			dst := scratch(t, nil)
			n, err := m.Receive(t.Context(), dst, server)
			var e *Error
			if n != int64(size) || !errors.As(err, &e) || !e.Network || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("size %d: received %d, %v", size, n, err)
			}
		}
	}
	// The control: package tls alone calls that the end.
	server, raw := connected(t)
	conn, err := net.FileConn(server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	plain, client := tls.Server(conn, serverConfig(t)), tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	go func() {
		client.Write([]byte("x"))
		raw.CloseWrite()
	}()
	if b, err := io.ReadAll(plain); err != nil || len(b) != 1 {
		t.Errorf("control: %q, %v", b, err)
	}
}

// A peer that stalls in the handshake, or before close_notify is taken, is left
// when the context ends.
func TestSecureEndsWithItsContext(t *testing.T) {
	server, _ := connected(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Secured(ctx, server, serverConfig(t)); err == nil {
		t.Error("a handshake with nobody")
	}

	m, server, _, _ := secured(t, tls.VersionTLS13)
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	size := int64(64 << 20)
	f := scratch(t, nil)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	_, err := m.Send(ctx, server, f, 0, size)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	began := time.Now()
	if err := m.Finish(ctx, server); err == nil {
		t.Error("finished what nobody has read")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
