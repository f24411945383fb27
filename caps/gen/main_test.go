package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestCommittedTableIsTheGenerated(t *testing.T) {
	src, err := source()
	if err != nil {
		t.Fatal(err)
	}
	want, err := generate(src)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../zcaps.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("caps/zcaps.go is stale: go generate ./caps")
	}
}

// A source with a hole or without an end would shift or lose capabilities.
func TestOddSourcesAreRefused(t *testing.T) {
	for _, body := range []string{
		"",
		"CAP_CHOWN = 0",
		"CAP_CHOWN = 0; CAP_LAST_CAP = 1",
		"CAP_CHOWN = 0; CAP_KILL = 0x2; CAP_LAST_CAP = 2",
		"CAP_CHOWN = 0; CAP_KILL = 0x40; CAP_LAST_CAP = 1",
		"CAP_CHOWN = 0; CAP_KILL = CAP_CHOWN; CAP_LAST_CAP = 1",
	} {
		if out, err := generate([]byte("package unix; const (" + body + ")")); err == nil {
			t.Errorf("%q: generated\n%s", body, out)
		}
	}
	out, err := generate([]byte("package unix; const (CAP_DAC_OVERRIDE = 0; CAP_X_Y = 1; CAP_LAST_CAP = 1)"))
	if err != nil || !strings.Contains(string(out), "DACOverride") {
		t.Errorf("got %s, %v", out, err)
	}
}
