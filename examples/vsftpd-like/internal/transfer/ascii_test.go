package transfer

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

var lines = []struct{ name, file, wire, back string }{
	{"empty", "", "", ""},
	{"no end", "a", "a", "a"},
	{"unix", "a\nb\n", "a\r\nb\r\n", "a\nb\n"},
	{"dos already", "a\r\nb\r\n", "a\r\nb\r\n", "a\nb\n"},
	{"mixed", "a\r\nb\nc", "a\r\nb\r\nc", "a\nb\nc"},
	{"empty lines", "\n\n", "\r\n\r\n", "\n\n"},
	{"lone CR", "a\rb\r", "a\rb\r", "a\rb\r"},
	{"two CR", "a\r\r\n", "a\r\r\n", "a\r\n"},
	{"LF CR", "\n\r", "\r\n\r", "\n\r"},
	{"8 bit", "\x00\xff\n", "\x00\xff\r\n", "\x00\xff\n"},
}

// inPieces converts s cut at the given places.
func inPieces(c converter, pieces ...string) string {
	var b strings.Builder
	for _, p := range pieces {
		b.Write(c([]byte(p), false))
	}
	b.Write(c(nil, true))
	return b.String()
}

func TestASCII(t *testing.T) {
	for _, l := range lines {
		for i := range len(l.file) + 1 {
			if got := inPieces(new(toCRLF).convert, l.file[:i], "", l.file[i:]); got != l.wire {
				t.Errorf("%s, cut at %d: sent %q, want %q", l.name, i, got, l.wire)
			}
		}
		for i := range len(l.wire) + 1 {
			if got := inPieces(new(fromCRLF).convert, l.wire[:i], "", l.wire[i:]); got != l.back {
				t.Errorf("%s, cut at %d: stored %q, want %q", l.name, i, got, l.back)
			}
		}
	}
}

// FuzzASCII compares the streams with what one look at the whole would give.
func FuzzASCII(f *testing.F) {
	for _, l := range lines {
		f.Add([]byte(l.file), uint8(1))
		f.Add([]byte(l.wire), uint8(2))
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		var pieces []string
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step)%7+1)
			pieces = append(pieces, string(rest[:n]))
			rest = rest[n:]
		}
		var sent []byte
		for i, b := range data {
			if b == '\n' && (i == 0 || data[i-1] != '\r') {
				sent = append(sent, '\r')
			}
			sent = append(sent, b)
		}
		if got := inPieces(new(toCRLF).convert, pieces...); got != string(sent) {
			t.Errorf("sent %q, want %q", got, sent)
		}
		want := string(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
		if got := inPieces(new(fromCRLF).convert, pieces...); got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
}

func TestASCIIOverConnection(t *testing.T) {
	text := strings.Repeat("a line of text\n", 100_000)
	wire := strings.ReplaceAll(text, "\n", "\r\n")

	dst, client := connected(t)
	got := make(chan string)
	go func() {
		b, _ := io.ReadAll(client)
		got <- string(b)
	}()
	n, err := new(Mover).SendASCII(t.Context(), dst, scratch(t, []byte(text)))
	dst.Close()
	if b := <-got; err != nil || n != int64(len(wire)) || b != wire {
		t.Errorf("sent %d of %d bytes, equal %v: %v", n, len(wire), b == wire, err)
	}

	src, client := connected(t)
	go func() {
		io.WriteString(client, wire)
		client.Close()
	}()
	f := scratch(t, nil)
	n, err = new(Mover).ReceiveASCII(t.Context(), f, src)
	if b, _ := os.ReadFile(f.Name()); err != nil || n != int64(len(wire)) || string(b) != text {
		t.Errorf("received %d of %d bytes, equal %v: %v", n, len(wire), string(b) == text, err)
	}
}
