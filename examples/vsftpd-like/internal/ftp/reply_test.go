package ftp

import (
	"fmt"
	"strings"
	"testing"
)

// wellFormed reports what a client would stumble over in one reply.
func wellFormed(reply string, code int) error {
	lines := strings.Split(reply, "\r\n")
	if len(lines) < 2 || lines[len(lines)-1] != "" {
		return fmt.Errorf("%q doesn't end with CRLF", reply)
	}
	lines = lines[:len(lines)-1]
	for i, l := range lines {
		for _, b := range []byte(l) {
			if b < ' ' || b == 0x7f {
				return fmt.Errorf("control character in %q", l)
			}
		}
		want := " "
		switch {
		case i == len(lines)-1:
			want = fmt.Sprint(code, " ")
		case i == 0:
			want = fmt.Sprint(code, "-")
		}
		if !strings.HasPrefix(l, want) {
			return fmt.Errorf("line %d of %q doesn't begin with %q", i, reply, want)
		}
	}
	return nil
}

func TestAppendReply(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{[]string{"ok"}, "200 ok\r\n"},
		{[]string{""}, "200 \r\n"},
		{[]string{"a", "b"}, "200-a\r\n200 b\r\n"},
		{[]string{"a", "200 x", "b"}, "200-a\r\n 200 x\r\n200 b\r\n"},
		{[]string{"a\r\n221 b"}, "200 a??221 b\r\n"},
		{[]string{"\x00\x1b[2J\x7f"}, "200 ??[2J?\r\n"},
		{[]string{"gr\xc3\xbc\xff"}, "200 gr\xc3\xbc\xff\xff\r\n"},
	} {
		if got := string(appendReply(nil, 200, c.lines...)); got != c.want {
			t.Errorf("%q: got %q, want %q", c.lines, got, c.want)
		}
	}
	// The control: without the defence the check below would find it.
	if wellFormed("200 a\r\n221 b\r\n", 200) == nil {
		t.Error("wellFormed sees no injected reply")
	}
}

func FuzzAppendReply(f *testing.F) {
	f.Add("a\r\n226 done", "b\n", "\xff\x00")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for _, lines := range [][]string{{a}, {a, b}, {a, b, c}} {
			if err := wellFormed(string(appendReply(nil, 257, lines...)), 257); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestQuote(t *testing.T) {
	if got, want := quote(`/a"b""`), `"/a""b"""""`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
