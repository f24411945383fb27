//go:build linux

package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/ipc"
)

// A replyCase is a files worker that was taken over, and what it answers to
// the honest session worker of its own session.
type replyCase struct {
	name, why string
	says      string // by the client, to make the session worker ask
	want      string // what the client is told: a regular expression
	send      func(*attacker, frame)
}

func replyCases() []replyCase {
	const size, retr = "SIZE readme.txt", "RETR readme.txt"
	const refused = `^(4|5)\d\d [^\r\n]*$`
	info := func(name string) []byte {
		plan, err := ipc.PlanFor[InfoReply]()
		if err != nil {
			panic(err)
		}
		body, _, err := plan.Encode(nil, &InfoReply{files.Info{Name: name, Size: 8, Mode: files.ModeRegular | 0o644}})
		if err != nil {
			panic(err)
		}
		return body
	}
	good := info("readme.txt")
	answer := func(name, why, says string, f frame, fds ...int) replyCase {
		return replyCase{name, why, says, refused, func(a *attacker, asked frame) {
			if f.call == 0 {
				f.call = asked.call
			}
			a.send(f, fds...)
		}}
	}
	cases := []replyCase{
		answer("a good one", "the cases below differ from it by one thing", size, frame{kind: reply, body: good}),
		answer("to another call", "nobody asked", size, frame{kind: reply, call: 77, body: good}),
		answer("a request", "the session worker serves nobody", size, frame{kind: request, body: good}),
		answer("a start", "a worker starts once", size, frame{kind: 9, body: good}),
		answer("no body", "fields are never left out", size, frame{kind: reply}),
		answer("cut", "fields are never left out", size, frame{kind: reply, body: good[:len(good)-1]}),
		answer("trailing byte", "a message has one length", size, frame{kind: reply, body: append(good[:len(good):len(good)], 0)}),
		answer("giant claim", "the codec would allocate it", size, frame{kind: reply, body: []byte{0xdd, 0xff, 0xff, 0xff, 0xff}}),
		answer("200000 bytes", "nothing lawful is so large", size, frame{kind: reply, body: make([]byte, 200_000)}),
		answer("a descriptor where none belongs", "it is closed", size, frame{kind: reply, files: 1, body: good}, 0),
		answer("253 descriptors", "they are closed", size, frame{kind: reply, files: 253, body: good}, make([]int, 253)...),
		answer("a file that is none", "a regular file is declared", retr, frame{kind: reply, files: 1, body: good}, 0),
		answer("no file", "one is declared", retr, frame{kind: reply, body: good}),
		{"its channel as the file", "a regular file is declared", retr, refused, func(a *attacker, asked frame) {
			a.send(frame{kind: reply, files: 1, call: asked.call, body: good}, a.monitorChannel())
		}},
		answer("refused with errno 0", "an error that is none is still an error", size, frame{kind: refusal}),
		answer("refused with errno 4294967295", "no such error", size, frame{kind: refusal, value: 1<<32 - 1}),
		answer("refused for its own death", "the error of a closed channel is not the worker's to send", size, frame{kind: refusal, value: uint32(unix.EPIPE)}),
		{"nothing, and closes", "calls in flight end", size, refused, func(a *attacker, f frame) {
			unix.Close(a.channel)
		}},
		{"nothing", "calls have a deadline", size, refused, func(*attacker, frame) {}},
		{"a flood", "the first that is wrong ends it", size, refused, func(a *attacker, f frame) {
			for a.send(frame{kind: reply, call: 99}) {
			}
		}},
	}
	cases[0].want = `^213 8$`
	return cases
}

func replyAttacks() map[string]attack {
	all := make(map[string]attack)
	for _, c := range replyCases() {
		all["reply: "+c.name] = func(a *attacker) string {
			a.channel = int(fdOf(a.files[0]))
			f, _, ok := a.take(30 * time.Second)
			if !ok {
				return "was not asked"
			}
			c.send(a, f)
			return a.hold()
		}
	}
	return all
}

// TestHostileReplies: the session worker trusts its files worker no more than
// the other way round. It tells its client, and goes on or ends well.
func TestHostileReplies(t *testing.T) {
	a := newArena(t)
	a.bears(t, func(t *testing.T) {
		for _, c := range replyCases() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				var told string
				done := make(chan struct{})
				got := a.try(t, trial{files: "reply: " + c.name, client: func(conn *net.TCPConn) {
					defer close(done)
					told = c.converse(conn)
				}})
				<-done
				if (got != end{"", gone}) {
					t.Errorf("got %v, want an end without trouble: %s", got, c.why)
				}
				if !regexp.MustCompile(c.want).MatchString(told) {
					t.Errorf("the client was told %q, want %s: %s", told, c.want, c.why)
				}
			})
		}
	})
}

// converse is the client's side, up to the reply in question.
func (c *replyCase) converse(conn *net.TCPConn) string {
	ftp := &control{TCPConn: conn, in: bufio.NewReader(conn)}
	if err := ftp.expect("220"); err != nil {
		return err.Error()
	}
	if err := ftp.prove("anonymous"); err != nil {
		return err.Error()
	}
	if bytes.HasPrefix([]byte(c.says), []byte("RETR")) {
		to, err := ftp.passive()
		if err != nil {
			return err.Error()
		}
		data, err := net.Dial("tcp", to)
		if err != nil {
			return err.Error()
		}
		defer data.Close()
	}
	if err := ftp.send(c.says); err != nil {
		return err.Error()
	}
	told, err := ftp.reply()
	if err != nil {
		return told + err.Error()
	}
	if ftp.send("QUIT") == nil {
		io.Copy(io.Discard, conn)
	}
	return told
}
