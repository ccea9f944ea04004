// Command gantry-runtime is the data plane of Gantry in one small binary: the shim that holds
// every container of a daemon, the init that becomes a container's first process, and a
// runc-compatible command line for everybody else.
package main

import (
	"os"

	ociinit "github.com/gantry/gantry/oci/init"
	_ "github.com/gantry/gantry/oci/launch/entry" // where the program begins
	"github.com/gantry/gantry/oci/ocicli"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/gantry/gantry/shim/shimd"
)

func main() {
	ociinit.Main()    // returns unless this process is to become a container
	ociruntime.Main() // or another OCI runtime
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(shimd.Main(os.Args[2:]))
	}
	os.Exit(ocicli.Main(os.Args[1:]))
}
