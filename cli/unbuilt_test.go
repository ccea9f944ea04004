package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli/command"
)

// TestUnbuilt: what is not built says so, whatever follows its name; and what is built stands in no list.
func TestUnbuilt(t *testing.T) {
	for _, name := range unbuilt() {
		t.Run(name, func(t *testing.T) {
			for _, more := range []string{"", " --help", " -t x --no-stream ."} {
				var out, errw bytes.Buffer
				code := Main(strings.Fields(name+more), os.Stdin, &out, &errw)
				want := fmt.Sprintf("docker: 'docker %s' is not built yet in this engine; docs/STATUS.md of its source says what is\n", name)
				if code != 1 || out.Len() != 0 || errw.String() != want {
					t.Errorf("%s: %d %q %q", more, code, out.String(), errw.String())
				}
			}
			cli := command.New(os.Stdin, &bytes.Buffer{}, &bytes.Buffer{})
			root := newRoot(cli)
			addCommands(cli, root, nil)
			if cmd, rest, err := root.Find(strings.Fields(name)); err == nil && len(rest) == 0 {
				t.Errorf("there is a command %s", cmd.CommandPath())
			}
		})
	}
}
