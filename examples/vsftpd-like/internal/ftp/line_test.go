package ftp

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// lines reads all of src; what is too long is "(long)".
func lines(src io.Reader, max int) []string {
	r := lineReader{src: src, max: max}
	var got []string
	for {
		text, tooLong, err := r.next()
		if err != nil {
			return got
		}
		if tooLong {
			text = "(long)" + text
		}
		got = append(got, text)
	}
}

func TestLineReader(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"CRLF", "a\r\nb\r\n", []string{"a", "b"}},
		{"LF", "a\nb\n", []string{"a", "b"}},
		{"unfinished", "a\r\nb", []string{"a"}},
		{"empty", "\r\n\n", []string{"", ""}},
		{"CR NUL is CR", "a\r\x00b\r\n", []string{"a\rb"}},
		{"CR alone", "a\rb\r\r\n", []string{"a\rb\r"}},
		{"NUL alone", "a\x00b\r\n", []string{"a\x00b"}},
		{"IAC IAC is 0xFF", "a\xff\xffb\r\n", []string{"a\xffb"}},
		{"IAC command", "\xff\xf4\xff\xf2ABOR\r\n", []string{"ABOR"}},
		{"IAC option", "\xff\xfb\x01a\xff\xfe\rb\r\n", []string{"ab"}},
		{"urgent DM lost its IAC", "\xff\xf4\xf2ABOR\r\n", []string{"ABOR"}},
		{"urgent IAC lost its DM", "\xff\xf4\xffABOR\r\n", []string{"ABOR"}},
		{"IAC in CRLF", "a\r\xff\xf1\nb\n", []string{"a", "b"}},
		{"IAC before LF", "a\xff\nb\n", []string{"a", "b"}},
		{"UTF-8", "grüß\r\n", []string{"grüß"}},
		{"high bytes later", "a\xf2\r\n", []string{"a\xf2"}},
		{"as long as may be", "12345678\r\n", []string{"12345678"}},
		{"too long", "123456789\r\nb\r\n", []string{"(long)", "b"}},
		{"too long, CR in it", "1234567\r\x00\r\x00\r\nb\r\n", []string{"(long)", "b"}},
	} {
		if got := lines(strings.NewReader(c.in), 8); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if got := lines(iotest.OneByteReader(strings.NewReader(c.in)), 8); !slices.Equal(got, c.want) {
			t.Errorf("%s, byte by byte: got %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzLineReader(f *testing.F) {
	f.Add([]byte("USER a\r\nPASS \xff\xffb\r\x00\r\n\xff\xf4\xff\xf2ABOR\n\xf2\xff\xfb"))
	f.Add([]byte(strings.Repeat("x", 70) + "\nNOOP\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := lines(bytes.NewReader(in), 64)
		if again := lines(iotest.OneByteReader(bytes.NewReader(in)), 64); !slices.Equal(got, again) {
			t.Errorf("in one piece %q, in bytes %q", got, again)
		}
		if len(got) > bytes.Count(in, []byte("\n")) {
			t.Errorf("more lines than LFs: %q", got)
		}
		for _, l := range got {
			if strings.Contains(l, "\n") || len(l) > 64 {
				t.Errorf("got line %q", l)
			}
			if strings.HasPrefix(l, "(long)") && l != "(long)" && !bytes.Contains(in, []byte("(long)")) {
				t.Errorf("part of a long line is left: %q", l)
			}
		}
	})
}
