package extension

import "testing"

func TestParseAction(t *testing.T) {
	for text, want := range map[string]Action{"": Nothing, "none": Nothing, "stop": Stop, "KILL": Kill, "restart": Restart} {
		t.Run(text, func(t *testing.T) {
			if a, ok := ParseAction(text); a != want || !ok {
				t.Errorf("%q: %q %v", text, a, ok)
			}
		})
	}
	if _, ok := ParseAction("reboot"); ok {
		t.Error("reboot")
	}
}
