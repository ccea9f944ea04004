package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gantry/gantry/cli/command"
)

// unbuilt are the commands of Docker's command line that this one does not have yet. Each is
// answered by its name, not like a typing error.
func unbuilt() []string {
	return []string{
		"build", "builder", "buildx", "checkpoint", "commit", "compose", "config", "cp", "import", "manifest", "node", "plugin",
		"search", "secret", "service", "stack", "stats", "swarm", "trust", "update",
		"container commit", "container cp", "container stats", "container update",
		"image build", "image import", "system prune", "volume update",
	}
}

// checkBuilt refuses a command line, without the flags in front of the command, that asks for what is not built.
func checkBuilt(rest []string) error {
	for n := 1; n <= min(len(rest), 2); n++ {
		if name := strings.Join(rest[:n], " "); slices.Contains(unbuilt(), name) {
			return command.ExitError{Code: 1, Text: fmt.Sprintf(
				"docker: 'docker %s' is not built yet in this engine; docs/STATUS.md of its source says what is", name)}
		}
	}
	return nil
}
