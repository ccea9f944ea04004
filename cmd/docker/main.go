// Command docker is the command line of the engine.
package main

import (
	"os"

	"github.com/gantry/gantry/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
