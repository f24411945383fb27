//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// patience is longer than anything takes here.
const patience = 60 * time.Second

// A control is a client's side of a control connection.
type control struct {
	*net.TCPConn
	in  *bufio.Reader
	tls *tls.Conn // nil: in the clear
}

// dial connects and takes the greeting. from is empty, or a loopback address.
func dial(address, from string) (*control, error) {
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &control{TCPConn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
	if err := c.expect("220"); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// connect is dial, and login is connect and USER and PASS, for a test's own
// goroutine.
func connect(t testing.TB, address, from string) *control {
	t.Helper()
	c, err := dial(address, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func login(t testing.TB, address, name string) *control {
	t.Helper()
	c := connect(t, address, "")
	if err := c.login(name); err != nil {
		t.Fatal(err)
	}
	return c
}

// login has the files worker started, too.
func (c *control) login(name string) error { return errors.Join(c.prove(name), c.do("CWD /", "250")) }

func (c *control) prove(name string) error {
	return errors.Join(c.do("USER "+name, "331"), c.do("PASS "+password, "230"), c.do("TYPE I", "200"))
}

// reply reads one, of however many lines.
func (c *control) reply() (string, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	all := ""
	for {
		line, err := c.in.ReadString('\n')
		all += line
		if err != nil {
			return all, err
		}
		if len(line) > 3 && line[3] == ' ' && line[:3] == all[:3] {
			return strings.TrimRight(all, "\r\n"), nil
		}
	}
}

func (c *control) expect(want string) error {
	got, err := c.reply()
	if err == nil && !strings.HasPrefix(got, want) {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

// ended expects the connection's end and nothing before it.
func (c *control) ended() error {
	if got, err := c.reply(); got != "" || !errors.Is(err, io.EOF) {
		return fmt.Errorf("got %q, %v; want the connection to be closed", got, err)
	}
	return nil
}

func (c *control) send(line string) error {
	c.SetWriteDeadline(time.Now().Add(patience))
	var to io.Writer = c.TCPConn
	if c.tls != nil {
		to = c.tls
	}
	_, err := io.WriteString(to, line+"\r\n")
	return err
}

func (c *control) do(line, want string) error {
	if err := c.send(line); err != nil {
		return err
	}
	if err := c.expect(want); err != nil {
		return fmt.Errorf("%.60s: %w", line, err)
	}
	return nil
}

// say is do, for a test that can't go on without; the reply is returned.
func (c *control) say(t testing.TB, line, want string) string {
	t.Helper()
	got, err := "", c.send(line)
	if err == nil {
		got, err = c.reply()
	}
	if err != nil || !strings.HasPrefix(got, want) {
		t.Fatalf("%.60s: got %q, %v; want %q", line, got, err, want)
	}
	return got
}

var extendedPort = regexp.MustCompile(`\(\|\|\|(\d+)\|\)`)

// passive says EPSV and returns the address that it leads to.
func (c *control) passive() (string, error) {
	if err := c.send("EPSV"); err != nil {
		return "", err
	}
	got, err := c.reply()
	m := extendedPort.FindStringSubmatch(got)
	if m == nil {
		return "", fmt.Errorf("EPSV: got %q, %v", got, err)
	}
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	return net.JoinHostPort(host, m[1]), err
}

// begin starts a transfer and returns its data connection.
func (c *control) begin(line string) (*net.TCPConn, error) {
	to, err := c.passive()
	if err != nil {
		return nil, err
	}
	data, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return nil, err
	}
	if err := c.do(line, "150"); err != nil {
		data.Close()
		return nil, err
	}
	data.SetDeadline(time.Now().Add(patience))
	return data.(*net.TCPConn), nil
}

// get is a whole download, or a listing.
func (c *control) get(line string) ([]byte, error) {
	data, err := c.begin(line)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	b, err := io.ReadAll(data)
	return b, errors.Join(err, c.expect("226"))
}

// put is a whole upload.
func (c *control) put(line string, content []byte) error {
	data, err := c.begin(line)
	if err != nil {
		return err
	}
	_, err = data.Write(content)
	return errors.Join(err, data.Close(), c.expect("226"))
}
