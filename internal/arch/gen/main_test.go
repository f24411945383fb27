package main

import (
	"bytes"
	"os"
	"testing"
)

func TestCommittedTablesAreTheGenerated(t *testing.T) {
	want, err := tables()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../ztables.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("internal/arch/ztables.go is stale: go generate ./internal/arch")
	}
}

// A source that means something else than a table must not become a policy.
func TestOddSourcesAreRefused(t *testing.T) {
	for _, body := range []string{
		"",
		"SYS_WRITE = 1",
		"SYS_READ = 0; SYS_WRITE = 0",
		"SYS_READ = 0; SYS_WRITE = SYS_READ",
		"SYS_READ = 0; SYS_read = 1",
		"SYS_READ = 0; SYS_WRITE",
		"SYS_READ = 0; SYS_X32 = 0x40000000",
	} {
		var b bytes.Buffer
		if err := table(&b, "any", []byte("package unix; const ("+body+")")); err == nil {
			t.Errorf("%q: generated\n%s", body, b.String())
		}
	}
}
