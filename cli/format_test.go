package cli_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// A field that does not exist is told before anything is asked of the daemon, in
// Docker's words and with its exit code. There is no daemon here.
func TestUnknownField(t *testing.T) {
	isolate(t, filepath.Join(t.TempDir(), "none"))
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"ps --format {{.Nope}}", 1, "failed to execute template: template: :1:2: executing"},
		{"ps --format table\t{{.Nope}}", 1, "failed to execute template: template: :"},
		{"events --format {{.Nope}}", 64, "Error parsing format: template: :1:2: executing"},
		{"events --format {{.Nope", 64, "Error parsing format: template: :1: unclosed action"},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.Split(c.args, " ")
			args[2] = strings.ReplaceAll(args[2], "table\t", "table ")
			if _, stderr, code := run(args...); code != c.code || !strings.HasPrefix(stderr, c.text) {
				t.Errorf("%s: %d %q", c.args, code, stderr)
			}
		})
	}
}
