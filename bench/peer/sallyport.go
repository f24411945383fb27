package peer

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Sallyport builds the module's own server from the tree that the bench is in,
// into dir, and returns it, with settings such as "isolation=shared" beside
// those that every row needs. Where the tree has no such server, the error is
// os.ErrNotExist.
func Sallyport(dir string, settings ...string) (*Server, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-privsep/sallyport").Output()
	if err != nil {
		return nil, fmt.Errorf("peer: the bench must run inside its module: %w", err)
	}
	tree := string(out[:max(0, len(out)-1)])
	const example = "examples/vsftpd-like"
	if sources, err := filepath.Glob(filepath.Join(tree, example, "*.go")); err != nil || len(sources) == 0 {
		return nil, errors.Join(err, &os.PathError{Op: "build", Path: example, Err: os.ErrNotExist})
	}
	path := filepath.Join(dir, "vsftpd-like")
	build := exec.Command("go", "build", "-o", path, "./"+example)
	build.Dir = tree
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the README says to build it
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("peer: build %s: %w\n%s", example, err, out)
	}
	name := strings.Join(append([]string{"sallyport"}, settings...), "+")
	return &Server{Name: name, Version: revision(path), Command: func(s *Site) ([]string, error) {
		file := filepath.Join(s.Dir, "vsftpd-like.conf")
		config := fmt.Sprintf(`listen = 127.0.0.1:%d
anonymous = yes
anonymous_root = %s
anonymous_write = yes
local_users = yes
local_write = yes
passive_ports = %d-%d
spares = %d
max_sessions = 2000
max_startups = 1000:30:2000
penalties = no
`, s.Port, s.Root, s.MinPort, s.MaxPort, s.Spares)
		for _, setting := range settings {
			key, value, _ := strings.Cut(setting, "=")
			config += key + " = " + value + "\n"
		}
		return []string{path, "-config", file}, os.WriteFile(file, []byte(config), 0o600)
	}}, nil
}

func revision(path string) string {
	revision, modified := "of no revision", ""
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return revision
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " and changes"
		}
	}
	return revision + modified
}
