// Command gantry-runtime is the data plane of Gantry in one small binary: the shim
// that holds every container of a daemon, and what becomes a container's first process.
package main

import (
	"fmt"
	"os"

	"github.com/gantry/gantry/internal/version"
	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/shim/server"
)

const usage = `Usage: gantry-runtime COMMAND

Commands:
  shim --root DIR   Hold the containers of a daemon (started by dockerd)

Options:
  --version         Print the version
`

func main() {
	ociinit.Main() // returns unless this process is to become a container
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	switch cmd := os.Args[1]; cmd {
	case "shim":
		os.Exit(server.Main(os.Args[2:]))
	case "--version", "-v":
		fmt.Printf("gantry-runtime version %s\ncommit: %s\nspec: 1.3.0\n", version.Version, version.Commit)
	case "--help", "-h", "help":
		fmt.Print(usage)
	case "create", "start", "state", "kill", "delete", "exec", "run", "list", "ps", "pause", "resume", "update",
		"events", "features", "spec", "checkpoint", "restore":
		fmt.Fprintf(os.Stderr, "gantry-runtime: the command %q is not built yet: this binary serves dockerd only\n", cmd)
		os.Exit(1)
	default:
		fmt.Fprintf(os.Stderr, "gantry-runtime: unknown command %q\n\n%s", cmd, usage)
		os.Exit(2)
	}
}
