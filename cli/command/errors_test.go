package command

import (
	"testing"

	"github.com/spf13/cobra"
)

// What is said about a wrong number of arguments, to the letter as Docker's client says it.
func TestArgErrors(t *testing.T) {
	cmd := &cobra.Command{Use: "pull [OPTIONS] NAME", Run: func(*cobra.Command, []string) {}}
	root := &cobra.Command{Use: "docker"}
	root.AddCommand(cmd)
	const tail = "\n\nUsage:  docker pull [OPTIONS] NAME\n\n"
	for _, c := range []struct {
		check cobra.PositionalArgs
		want  string
	}{
		{ExactArgs(1), "docker: 'docker pull' requires 1 argument" + tail + "Run 'docker pull --help' for more information"},
		{ExactArgs(3), "docker: 'docker pull' requires 3 arguments" + tail + "Run 'docker pull --help' for more information"},
		{MinArgs(3), "docker: 'docker pull' requires at least 3 arguments" + tail + "See 'docker pull --help' for more information"},
		{MaxArgs(1), "docker: 'docker pull' requires at most 1 argument" + tail + "Run 'docker pull --help' for more information"},
		{NoArgs, "docker: 'docker pull' accepts no arguments" + tail + "Run 'docker pull --help' for more information"},
		{func(cmd *cobra.Command, _ []string) error { return RangeError(cmd, 0, 1) }, "docker: 'docker pull' requires at least 0 and at most 1 argument" + tail + "Run 'docker pull --help' for more information"},
	} {
		if err := c.check(cmd, []string{"a", "b"}); err == nil || err.Error() != c.want {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}
