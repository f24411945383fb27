//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// callerCases are violations in what is called when, and with what: the policy
// and the checks, where wireCases are about form.
func callerCases() []wireCase {
	var all []wireCase
	call := func(phase, name, why, want, op string, body []byte, fds ...int) {
		all = append(all, wireCase{name: name, why: why, only: phase, want: want, send: func(a *attacker, t target) { a.ask(op, body, fds...) }})
	}
	empty := object()
	port := func(n uint16) []byte { return object(field{"Port", []byte{0xcd, byte(n >> 8), byte(n)}}) }
	login := func(user, password string) []byte {
		return object(field{"User", str(user)}, field{"Password", str(password)})
	}
	path := func(p string) []byte { return object(field{"Path", str(p)}) }

	for _, op := range []string{"listen-data", "accept-data"} {
		call("preauth", op+" before login", "the phase does not permit it", "not permitted in this phase", op, empty)
	}
	call("preauth", "connect-data before login", "the phase does not permit it", "not permitted in this phase", "connect-data", port(65000))
	call("authed", "login again", "a session has one identity", "not permitted in this phase", "login", login("anonymous", "x"))
	for _, op := range []string{"stat", "open", "create", "list", "mkdir", "rmdir", "remove", "rename"} {
		call("monitor", op+" by the monitor", "the monitor touches no file for anybody", "unknown operation", op, path("/"))
	}
	for _, op := range []string{"login", "listen-data", "accept-data", "connect-data"} {
		call("serving", op+" by a files worker", "it is no monitor", "unknown operation", op, empty)
	}

	// Checks: what no lawful worker lets through on its own side.
	call("preauth", "name with NUL", "ends a string elsewhere", "form that no account has", "login", login("a\x00b", "x"))
	call("preauth", "name with a slash", "is a path elsewhere", "form that no account has", "login", login("../../etc/shadow", "x"))
	call("preauth", "name with a newline", "is two lines in a log or a passwd", "form that no account has", "login", login("a\nroot:x:0:0", "x"))
	call("preauth", "name empty", "nobody is called so", "form that no account has", "login", login("", "x"))
	call("preauth", "name of 65 bytes", "longer than any", "longer than its bound", "login", login(strings.Repeat("a", 65), "x"))
	call("preauth", "password with NUL", "two passwords would be one", "form that no account has", "login", login("a", "x\x00y"))
	for _, n := range []uint16{1023, 514, 256} {
		call("authed", fmt.Sprintf("connect to port %d", n), "the bounce attack (RFC 2577)", "port below 1024", "connect-data", port(n))
	}
	call("authed", "connect to port 22", "the bounce attack (RFC 2577)", "port below 1024", "connect-data", object(field{"Port", []byte{22}}))
	call("authed", "connect to port 0", "the bounce attack (RFC 2577)", "port below 1024", "connect-data", object(field{"Port", []byte{0}}))
	call("authed", "connect to port 65536", "it would be port 0 in 16 bits", "outside of its type", "connect-data", object(field{"Port", []byte{0xce, 0, 1, 0, 0}}))
	call("authed", "connect to port -1", "it would be 65535 in 16 bits", "outside of its type", "connect-data", object(field{"Port", []byte{0xff}}))
	call("authed", "address beside the port", "the monitor knows whom to connect to", "field", "connect-data",
		object(field{"Address", str("10.0.0.1")}, field{"Port", []byte{0xcd, 0xfd, 0xe8}}))
	for name, p := range map[string]string{
		"relative": "x", "empty": "", "climbing": "/../x", "with NUL": "/a\x00b", "not clean": "/a/../b", "with a double slash": "//etc",
	} {
		call("serving", "path "+name, "the session worker cleans paths", "not absolute and clean", "stat", path(p))
	}
	call("serving", "mode 0", "zero means no", "unknown mode", "create", object(field{"Path", str("/new")}, field{"Mode", []byte{0}}))
	call("serving", "mode 9", "no such mode", "unknown mode", "create", object(field{"Path", str("/new")}, field{"Mode", []byte{9}}))
	call("serving", "mode -1", "no such mode", "outside of its type", "create", object(field{"Path", str("/new")}, field{"Mode", []byte{0xff}}))

	// Kinds: list declares one descriptor, the write end of a pipe.
	list := object(field{"Path", str("/")}, field{"Format", []byte{2}}, field{"Facts", []byte{0}}, field{"All", []byte{0xc2}})
	call("serving", "list without a descriptor", "it is declared", "wrong number of files", "list", list)
	call("serving", "list with two", "one is declared", "wrong number of files", "list", list, 2, 2)
	call("serving", "list into a device", "a pipe is declared", "needs a file of kind pipe-write", "list", list, 0)
	held := func(name string, fd func(*attacker) int) {
		all = append(all, wireCase{name: "list into " + name, why: "a pipe is declared", only: "serving", want: "needs a file of kind pipe-write",
			send: func(a *attacker, t target) { a.ask("list", list, fd(a)) }})
	}
	held("the client's connection", func(a *attacker) int { return int(fdOf(a.files[0])) })
	held("its own channel", func(a *attacker) int { return a.channel })
	held("the read end of a pipe", func(*attacker) int {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			panic(err)
		}
		return p[0]
	})
	held("an epoll", func(*attacker) int {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			panic(err)
		}
		return fd
	})

	// Budgets, order and time.
	ends := func(name, why, only, want string, send func(*attacker, target)) {
		all = append(all, wireCase{name: name, why: why, only: only, want: want, send: send})
	}
	ends("login 4 times", "three tries are all", "preauth", "called too often", func(a *attacker, t target) {
		for range 4 {
			a.ask("login", login("nobody-there", "x"))
		}
	})
	ends("login 33 times at once", "each would hold memory", "preauth", "too many calls outstanding", func(a *attacker, t target) {
		for range 33 {
			a.ask("login", login("nobody-there", "x"))
		}
	})
	verify := certificateVerify()
	sign := func(message []byte) []byte {
		return object(field{"Message", octets(message)}, field{"Hash", []byte{5}}, field{"PSS", []byte{0xc2}})
	}
	ends("tls-sign twice", "a session has one handshake before the login", "preauth", "called too often", func(a *attacker, t target) {
		for range 2 {
			a.ask("tls-sign", sign(verify.Message))
		}
	})
	ends("tls-sign after the login", "its phase is over", "authed", "not permitted", func(a *attacker, t target) { a.ask("tls-sign", sign(verify.Message)) })
	ends("tls-sign-data before the login", "there is no data connection", "preauth", "not permitted", func(a *attacker, t target) { a.ask("tls-sign-data", sign(verify.Message)) })
	call("preauth", "tls-sign a digest", "it could be anything's", "no message that TLS signs", "tls-sign", sign(make([]byte, 32)))
	call("preauth", "tls-sign 400 bytes", "they could be a certificate's", "no message that TLS signs", "tls-sign", sign(make([]byte, 400)))
	call("preauth", "tls-sign 401 bytes", "more than is bounded", "", "tls-sign", sign(make([]byte, 401)))
	call("authed", "tls-sign-data a digest", "it could be anything's", "no message that TLS signs", "tls-sign-data", sign(make([]byte, 48)))
	ends("33 calls that wait", "each would hold memory", "authed", "too many calls outstanding", func(a *attacker, t target) {
		a.ask("listen-data", empty)
		for range 33 {
			a.ask("accept-data", empty)
		}
	})
	ends("an empty packet", "it looks like the end, and is taken for it", "monitor", "closed its channel and lives on", func(a *attacker, t target) { a.put(nil) })
	ends("closes the channel and lives on", "nobody answers for it any more", "monitor", "closed its channel and lives on", func(a *attacker, t target) { unix.Close(a.channel) })
	ends("shuts its writing side", "the same", "monitor", "closed its channel and lives on", func(a *attacker, t target) { unix.Shutdown(a.channel, unix.SHUT_WR) })
	ends("shuts its reading side", "answers can't reach it", "authed", "closed its channel and lives on", func(a *attacker, t target) {
		unix.Shutdown(a.channel, unix.SHUT_RD)
		a.ask("accept-data", empty)
	})
	ends("reads no answer", "a stalled worker holds its session's goroutine", "authed", "answers are not read", func(a *attacker, t target) {
		for a.ask("accept-data", empty) {
		}
	})
	return all
}

// behaviours end in other ways than by a violation.
func behaviours() map[string]attack {
	authed := func(do attack) attack {
		return func(a *attacker) string { a.seize(); a.logIn(); return do(a) }
	}
	die := func(how func()) attack {
		return authed(func(a *attacker) string {
			a.ask("listen-data", object())
			a.answer()
			a.ask("accept-data", object())
			time.Sleep(50 * time.Millisecond)
			how()
			return "did not die"
		})
	}
	// flood calls at full speed for two seconds, as many at once as may be.
	flood := func(op string, body []byte) attack {
		return authed(func(a *attacker) string {
			for end, n := time.Now().Add(2*time.Second), 0; time.Now().Before(end); n++ {
				if !a.ask(op, body) {
					return "cut off"
				}
				if n >= 30 && a.answer() == "no answer" {
					return "no answer"
				}
			}
			return fmt.Sprintf("flooded %d", a.last)
		})
	}
	return map[string]attack{
		"silence":           func(a *attacker) string { time.Sleep(1500 * time.Millisecond); return "nobody minded" },
		"exit":              die(func() { os.Exit(0) }),
		"die":               die(func() { unix.Tgkill(os.Getpid(), os.Getpid(), unix.SIGKILL) }),
		"panic":             die(func() { panic("taken over") }),
		"flood calls":       flood("accept-data", object()),
		"flood ports":       flood("listen-data", object()),
		"flood connections": flood("connect-data", object(field{"Port", []byte{0xcd, 0xfd, 0xe8}})),
		"flood standard error": func(a *attacker) string {
			for line := []byte(strings.Repeat("\x1b[31mroot\r\n", 100)); ; {
				os.Stderr.Write(line)
			}
		},
		"spin": func(a *attacker) string {
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
				runtime.Gosched()
			}
			return "nobody minded"
		},
		"wait for nobody": authed(func(a *attacker) string { a.ask("accept-data", object()); return a.answer() }),
		"wait for less than lawful": authed(func(a *attacker) string {
			a.ask("listen-data", object())
			a.answer()
			a.last++
			a.send(frame{kind: request, call: a.last, value: 20, op: opNumber("accept-data"), body: object()})
			return a.answer()
		}),
		"wait for no time": authed(func(a *attacker) string {
			a.last++
			a.send(frame{kind: request, call: a.last, op: opNumber("listen-data"), body: object()})
			return a.answer()
		}),
		"cancel": authed(func(a *attacker) string {
			a.ask("listen-data", object())
			a.answer()
			a.ask("accept-data", object())
			a.send(frame{kind: cancel, call: a.last})
			return a.answer()
		}),
		// The kernel counts descriptors under way by user, not by process.
		"crowd": func(a *attacker) string {
			a.seize()
			a.channel = a.logIn()
			for range 2 { // with 64 under way the kernel refuses more
				a.put(frame{kind: request, files: 60, call: 1}.bytes(), make([]int, 60)...)
			}
			time.Sleep(500 * time.Millisecond)
			return "crowded"
		},
		"never read": func(a *attacker) string { return a.hold() },
		"leave a connection to its files worker": func(a *attacker) string {
			a.seize()
			unix.Close(a.logIn())
			time.Sleep(200 * time.Millisecond)
			return "alone"
		},
	}
}

// TestHostileBehaviour: time, death and floods.
func TestHostileBehaviour(t *testing.T) {
	a := newArena(t)
	a.bears(t, func(t *testing.T) {
		for _, c := range []struct {
			name, why string
			timeout   time.Duration
			want      end
			within    time.Duration
		}{
			{"silence", "a phase has a deadline", 300 * time.Millisecond, end{"session", timedOut}, 6 * time.Second},
			{"silence", "the control: a phase without a deadline", -1, end{"session", "nobody minded"}, 4 * time.Second},
			{"spin", "a deadline does not ask the worker", 300 * time.Millisecond, end{"session", timedOut}, 6 * time.Second},
			{"flood standard error", "the pipe is full and nobody waits for it", 500 * time.Millisecond, end{"session", timedOut}, 6 * time.Second},
			{"exit", "a call in flight ends with its caller", 0, end{"", gone}, 6 * time.Second},
			{"die", "a call in flight ends with its caller", 0, end{"session", crashed}, 6 * time.Second},
			{"panic", "a call in flight ends with its caller", 0, end{"session", crashed}, 6 * time.Second},
			{"flood calls", "refused, each of them", 0, end{"session", "flooded"}, 10 * time.Second},
			{"flood ports", "each ends the one before", 0, end{"session", "flooded"}, 10 * time.Second},
			{"flood connections", "none is there", 0, end{"session", "flooded"}, 10 * time.Second},
			{"wait for nobody", "a refusal is an errno", 0, end{"session", "EINVAL"}, 6 * time.Second},
			{"wait for less than lawful", "a caller's deadline reaches the monitor", 0, end{"session", "ETIMEDOUT"}, 6 * time.Second},
			{"wait for no time", "no caller does", 0, end{"", "violation authed : a call without time"}, 6 * time.Second},
			{"cancel", "a caller's change of mind reaches the monitor", 0, end{"session", "ECANCELED"}, 6 * time.Second},
			{"leave a connection to its files worker", "a files worker ends well when nobody asks", 0, end{"session", "alone"}, 6 * time.Second},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				got := a.try(t, trial{session: c.name, timeout: c.timeout})
				if got.role != c.want.role || !strings.HasPrefix(got.result, c.want.result) {
					t.Errorf("got %v, want %v: %s", got, c.want, c.why)
				}
				if took := time.Since(start); took > c.within {
					t.Errorf("took %v, want less than %v", took, c.within)
				}
				t.Log(got)
			})
		}
		t.Run("crowd", func(t *testing.T) {
			t.Parallel()
			// Both workers are the attacker's, and one does not read what the
			// other sends. For as long as they please: see the limits of
			// ipc.Conn's sending, which waits out a moment.
			want := end{"session", "crowded"}
			if got := a.try(t, trial{session: "crowd", files: "never read"}); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	})
	// Tens of thousands of calls were refused; no worker fills a disk.
	if got := a.logged.Load(); got > 500 {
		t.Errorf("the monitor logged %d lines, want at most 500", got)
	}
}
