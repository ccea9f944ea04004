//go:build tools

// Package dockercli pins the modules that Docker's own client is built from for the
// tests: github.com/docker/cli has no go.mod of its own.
package dockercli

import _ "github.com/docker/cli/cmd/docker"
