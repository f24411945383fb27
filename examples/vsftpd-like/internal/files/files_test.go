package files

import "testing"

func TestZeroNamesNothing(t *testing.T) {
	if Format(0).Valid() || CreateMode(0).Valid() || (ListOptions{}).Valid() {
		t.Error("a zero value is valid, want it refused")
	}
	if (Machine + 1).Valid() || (Unique + 1).Valid() || (AllFacts + 1).Valid() {
		t.Error("a value past the last is valid, want it refused")
	}
	if (ListOptions{Format: Long, Facts: FactSize}).Valid() {
		t.Error("facts with a long listing are valid, want them refused")
	}
	if !(ListOptions{Format: Machine}).Valid() {
		t.Error("a machine listing without facts is refused; RFC 3659 section 7.9 allows it")
	}
}
