// Command gantry-runtime is the data plane of Gantry in one small binary: the shim
// that holds every container of a daemon, what becomes a container's first process,
// and a runc-compatible command line for everybody else.
package main

import (
	"os"

	_ "github.com/gantry/gantry/oci/entry" // where the program begins
	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/runc"
	"github.com/gantry/gantry/shim/server"
)

func main() {
	ociinit.Main() // returns unless this process is to become a container
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(server.Main(os.Args[2:]))
	}
	os.Exit(runc.Main(os.Args[1:]))
}
