package ftpload

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestReply(t *testing.T) {
	for _, test := range []struct {
		name, in, want string
		fails          bool
	}{
		{name: "one line", in: "220 hello\r\n", want: "220 hello"},
		{name: "bare code", in: "226\r\n", want: "226"},
		{name: "many lines", in: "230-a\r\n 230 not yet\r\n230-b\r\n230 end\r\n", want: "230-a"},
		{name: "another code inside", in: "230-a\r\n226 b\r\n230 end\r\n", want: "230-a"},
		{name: "cut off", in: "220 hel", fails: true},
		{name: "no code", in: "hello\r\n", fails: true},
		{name: "empty", in: "\r\n", fails: true},
		{name: "line without end", in: strings.Repeat("2", 5000), fails: true},
		{name: "reply without end", in: "230-a\r\n" + strings.Repeat("230-b\r\n", 200), fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &Client{r: bufio.NewReaderSize(strings.NewReader(test.in), 4096)}
			got, err := c.reply()
			if (err != nil) != test.fails || got != test.want {
				t.Errorf("reply() = %q, %v, want %q, failing %v", got, err, test.want, test.fails)
			}
		})
	}
}

func TestPassivePort(t *testing.T) {
	for _, test := range []struct {
		in   string
		want int
		ok   bool
	}{
		{"229 Entering Extended Passive Mode (|||6446|)", 6446, true},
		{"229 Entering Extended Passive Mode (|||6446|).", 6446, true},
		{"229 (|||0|)", 0, false},
		{"229 (|||65536|)", 0, false},
		{"229 (|||6446", 0, false},
		{"227 Entering Passive Mode (127,0,0,1,4,1)", 0, false},
		{"500 no", 0, false},
	} {
		if got, ok := passivePort(test.in); ok != test.ok || ok && got != test.want {
			t.Errorf("passivePort(%q) = %d, %v, want %d, %v", test.in, got, ok, test.want, test.ok)
		}
	}
}

// A load that meets an error has no figure.
func TestErrorEndsLoad(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("421 too many\r\n"))
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := Logins(ctx, l.Addr().String(), Anonymous, 2, Limit{Count: 10, Time: time.Second})
	var reply *ReplyError
	if !errors.As(err, &reply) || reply.Reply != "421 too many" || got.Count != 0 {
		t.Errorf("Logins = %+v, %v, want a ReplyError with 421", got, err)
	}
}

func TestLimit(t *testing.T) {
	nothing := func(int) (work, error) {
		return work{op: func(int64) (int64, error) { time.Sleep(time.Millisecond); return 3, nil }}, nil
	}
	got, err := run(t.Context(), 4, Limit{Count: 10, Time: time.Minute}, nothing)
	if err != nil || got.Count != 10 || got.Bytes != 30 {
		t.Errorf("by count: %+v, %v, want 10 operations of 3 bytes", got, err)
	}
	got, err = run(t.Context(), 4, Limit{Count: 1 << 40, Time: 20 * time.Millisecond}, nothing)
	if err != nil || got.Count == 0 || got.Elapsed > 5*time.Second {
		t.Errorf("by time: %+v, %v, want about 20 ms", got, err)
	}
}
