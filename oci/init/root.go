package ociinit

import "github.com/gantry/gantry/oci/plan/initmsg"

// RootTree makes a container's root as a mount that is attached nowhere, for somebody
// else than init: a restore.
func RootTree(r *initmsg.Root) (int, error) { return rootTree(r) }
