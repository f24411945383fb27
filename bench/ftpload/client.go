// Package ftpload is a load generator for FTP servers on the same machine.
//
// It is made to cost little beside the server, as both share the processors:
// large buffers, no copy of what is sent, nothing kept of what is received. It
// still checks every reply and counts every byte, for a fast truncated transfer
// is a failure and no figure. It speaks only what the bench needs: USER, PASS,
// TYPE I, EPSV, RETR, STOR, QUIT; no TLS.
package ftpload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// maxReplyLines bounds a multi-line reply; a line is bounded by the reader's
// buffer.
const maxReplyLines = 100

// A ReplyError is a reply other than the one that the command asks for.
type ReplyError struct {
	Command string // the verb; empty for the greeting
	Reply   string // the first line, with its code
}

func (e *ReplyError) Error() string {
	return fmt.Sprintf("ftpload: %q answered %q", e.Command, e.Reply)
}

// A Client is one control connection. It is not for concurrent use.
type Client struct {
	conn     net.Conn
	r        *bufio.Reader
	host     string
	deadline time.Time // zero: none
}

// Dial connects and reads the greeting. The context's deadline holds for
// everything that is done with the client afterwards.
func Dial(ctx context.Context, addr string) (*Client, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, 4096), host: host}
	if t, ok := ctx.Deadline(); ok {
		c.deadline = t
		conn.SetDeadline(t)
	}
	if err := c.expect("", 220); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the control connection without QUIT.
func (c *Client) Close() error { return c.conn.Close() }

// Login sends USER and PASS.
func (c *Client) Login(user, password string) error {
	if err := c.do(331, "USER", user); err != nil {
		return err
	}
	return c.do(230, "PASS", password)
}

// Binary sends TYPE I.
func (c *Client) Binary() error { return c.do(200, "TYPE", "I") }

// Quit sends QUIT, waits for the farewell and closes.
func (c *Client) Quit() error {
	err := c.do(221, "QUIT", "")
	return errors.Join(err, c.conn.Close())
}

// Retrieve downloads a file into nothing, through buf, and returns its length.
func (c *Client) Retrieve(name string, buf []byte) (int64, error) {
	data, err := c.open("RETR", name)
	if err != nil {
		return 0, err
	}
	defer data.Close()
	var total int64
	for {
		n, err := data.Read(buf)
		total += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return total, err
		}
	}
	data.Close()
	return total, c.expect("RETR", 226)
}

// Store uploads size bytes, repeating chunk.
func (c *Client) Store(name string, chunk []byte, size int64) error {
	data, err := c.open("STOR", name)
	if err != nil {
		return err
	}
	defer data.Close()
	for size > 0 {
		n, err := data.Write(chunk[:min(size, int64(len(chunk)))])
		size -= int64(n)
		if err != nil {
			return err
		}
	}
	if err := data.Close(); err != nil {
		return err
	}
	return c.expect("STOR", 226)
}

// open makes a passive data connection and starts a transfer on it.
func (c *Client) open(verb, name string) (net.Conn, error) {
	if err := c.send("EPSV", ""); err != nil {
		return nil, err
	}
	line, err := c.reply()
	if err != nil {
		return nil, err
	}
	port, ok := passivePort(line)
	if !ok {
		return nil, &ReplyError{"EPSV", line}
	}
	d := net.Dialer{Deadline: c.deadline}
	data, err := d.Dial("tcp", net.JoinHostPort(c.host, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	data.SetDeadline(c.deadline)
	if err := c.do(150, verb, name); err != nil {
		data.Close()
		return nil, err
	}
	return data, nil
}

// passivePort takes the port out of RFC 2428's "229 text (|||port|)".
func passivePort(line string) (int, bool) {
	if !strings.HasPrefix(line, "229 ") {
		return 0, false
	}
	_, rest, ok := strings.Cut(line, "(|||")
	digits, _, ok2 := strings.Cut(rest, "|)")
	port, err := strconv.ParseUint(digits, 10, 16)
	return int(port), ok && ok2 && err == nil && port > 0
}

func (c *Client) do(want int, verb, arg string) error {
	if err := c.send(verb, arg); err != nil {
		return err
	}
	return c.expect(verb, want)
}

func (c *Client) send(verb, arg string) error {
	line := verb + " " + arg + "\r\n"
	if arg == "" {
		line = verb + "\r\n"
	}
	_, err := io.WriteString(c.conn, line)
	return err
}

func (c *Client) expect(verb string, want int) error {
	line, err := c.reply()
	if err != nil {
		return fmt.Errorf("ftpload: reply to %q: %w", verb, err)
	}
	if line[:3] == strconv.Itoa(want) {
		return nil
	}
	// RFC 959 lets a server answer 125 for 150 where the connection is open.
	if want == 150 && line[:3] == "125" {
		return nil
	}
	return &ReplyError{verb, line}
}

// reply reads one reply, of one line or of many, and returns its first line.
func (c *Client) reply() (string, error) {
	var first string
	for range maxReplyLines {
		b, err := c.r.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		line := strings.TrimRight(string(b), "\r\n")
		if first == "" {
			if !startsReply(line) {
				return "", fmt.Errorf("ftpload: not a reply: %.80q", line)
			}
			first = line
		}
		if len(line) >= 4 && line[:3] == first[:3] && line[3] == ' ' || line == first[:3] {
			return first, nil
		}
	}
	return "", fmt.Errorf("ftpload: reply of more than %d lines", maxReplyLines)
}

func startsReply(line string) bool {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return false
	}
	for _, d := range line[:3] {
		if d < '0' || d > '9' {
			return false
		}
	}
	return true
}
