package config

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// What a file may be, and how many of its mistakes are told.
const (
	maxFile     = 1 << 20
	maxMistakes = 20
)

// Load reads the configuration at path. What is wrong with the text comes as
// [Mistakes].
func Load(path string) (Config, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Config{}, fmt.Errorf("%w: name a file that uid %d may read", err, os.Geteuid())
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return Config{}, err
	case !info.Mode().IsRegular():
		return Config{}, Mistakes{{path, 0, "not a regular file: name a text file"}}
	case info.Mode()&fs.FileMode(0o002) != 0:
		return Config{}, Mistakes{{path, 0, "everybody may write it: chmod o-w"}}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Config{}, err
	}
	return Parse(path, text)
}

// Parse reads a configuration's text; name is what to call the file. Where
// there is an error, the Config is the zero one.
func Parse(name string, text []byte) (Config, error) {
	if len(text) > maxFile {
		return Config{}, Mistakes{{name, 0, fmt.Sprintf("larger than %d MiB: remove something", maxFile>>20)}}
	}
	c := Default()
	var bad Mistakes
	seen := map[string]int{}
	c.from = &places{name, seen}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if err := c.line(string(line), n, seen); err != nil {
			bad = append(bad, Mistake{name, n, err.Error()})
		}
	}
	// What the lines make together says little while some can't be read.
	if len(bad) == 0 {
		for _, problem := range c.Check() {
			// The key that is to be changed is the first word of many.
			key, _, _ := strings.Cut(problem, " ")
			bad = append(bad, Mistake{name, seen[key], problem})
		}
	}
	if len(bad) > maxMistakes {
		more := len(bad) - maxMistakes
		bad = append(bad[:maxMistakes:maxMistakes], Mistake{name, 0, fmt.Sprintf("and %d mistakes more", more)})
	}
	if len(bad) > 0 {
		return Config{}, bad
	}
	return c, nil
}

// line takes one line of the file into c.
func (c *Config) line(line string, n int, seen map[string]int) error {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil
	}
	if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == 0xfffd }); i >= 0 {
		return fmt.Errorf("control character or broken UTF-8 at byte %d: remove it", i+1)
	}
	key, value, ok := strings.Cut(line, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok {
		return fmt.Errorf("%.40q has no =: write key = value", line)
	}
	k := find(key)
	if k == nil {
		return fmt.Errorf("unknown key %.40q%s", key, suggest(key))
	}
	if first, twice := seen[key]; twice {
		return fmt.Errorf("%s is set a second time: remove this line or line %d", key, first)
	}
	seen[key] = n
	if err := k.set(c, value); err != nil {
		return fmt.Errorf("%s = %.60s: %w", key, value, err)
	}
	return nil
}

// suggest names the key that was meant, by vsftpd's name for it or by likeness.
func suggest(key string) string {
	for _, k := range keys {
		if slices.Contains(k.theirs, strings.ToLower(key)) {
			return ": here it is called " + k.name
		}
	}
	best, at := "", 3
	for _, k := range keys {
		if d := distance(strings.ToLower(key), k.name); d <= at {
			best, at = k.name, d-1
		}
	}
	if best == "" {
		return ": the example file lists the keys"
	}
	return ": is " + best + " meant?"
}

// distance is how many letters must be put in, taken out or changed to make
// b of a. Keys far longer than any are not worth the work.
func distance(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
