// Command dockerd is the daemon: the control plane of the engine behind Docker's API.
package main

import (
	"os"

	"github.com/gantry/gantry/engine"
	"github.com/gantry/gantry/internal/version"
	"github.com/gantry/gantry/server"
)

func main() {
	os.Exit(engine.Main(os.Args[1:], os.Stdout, os.Stderr, newAPI))
}

// newAPI puts the HTTP server on top of the engine's services.
func newAPI(e *engine.Engine) engine.API {
	return server.New(server.Options{
		Containers: e.Containers(), Images: e.Images(), Networks: e.Networks(), Volumes: e.Volumes(), System: e,
		EngineVersion: version.Version, Debug: e.Debug, Log: e.Log(),
	})
}
