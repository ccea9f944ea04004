//go:build tools

// Package runtimetools pins the versions with which the validation programs of the
// OCI's runtime-tools are built: their module has no go.mod.
package runtimetools

import (
	_ "github.com/opencontainers/runtime-tools/cmd/runtimetest"
	_ "github.com/opencontainers/runtime-tools/validation/create"
)
