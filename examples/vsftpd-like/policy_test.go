package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-privsep/sallyport/privsep/privseptest"
)

var update = flag.Bool("update", false, "write what the golden files in testdata should be")

// TestPolicy: whoever widens what a worker may ask has to say so in a file that
// reviewers read.
func TestPolicy(t *testing.T) {
	policy, _, _ := newPolicy(0)
	golden(t, "policy.txt", policy)
	policy, _, _ = newPolicy(20)
	golden(t, "policy-port-20.txt", policy)
	policy, _ = newFilesPolicy()
	golden(t, "files-policy.txt", policy)
	policy, _ = newAccountsPolicy()
	golden(t, "accounts-policy.txt", policy)
	policy, _ = newKeysPolicy()
	golden(t, "keys-policy.txt", policy)
}

// TestMessages: nor may a request say what the monitor knows by itself.
func TestMessages(t *testing.T) {
	policy, _, _ := newPolicy(0)
	golden(t, "messages.txt", privseptest.Messages(policy))
	policy, _ = newFilesPolicy()
	golden(t, "files-messages.txt", privseptest.Messages(policy))
}

func golden(t *testing.T, name string, v any) {
	t.Helper()
	path, got := filepath.Join("testdata", name), fmt.Sprint(v)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%swant\n%s(go test -run 'TestPolicy|TestMessages' -update writes it)", path, got, want)
	}
}
