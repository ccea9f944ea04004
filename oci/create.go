package oci

import "context"

// Create makes the container that o describes and starts its first process. It
// returns when the program runs (with Hold: when it is ready to). On success the
// caller reaps the process and later calls DeleteCgroup; on failure nothing is
// left: the process is reaped, the cgroup removed. ctx ends the wait and the
// attempt, not the container.
//
// Errors: the program is missing, ErrNotFound; it cannot be executed,
// ErrPermissionDenied; the spec asks for what is impossible, ErrInvalidArgument;
// a feature that does not exist here, ErrNotImplemented. It is safe for
// concurrent use.
func Create(ctx context.Context, o *CreateOpts) (*Process, error) { return nil, errNotBuilt }

// Exec starts a further process in the container of o.Init, in all its
// namespaces and its cgroup. Errors and ownership are as with Create;
// ErrFailedPrecondition when the container is gone.
func Exec(ctx context.Context, o *ExecOpts) (*Process, error) { return nil, errNotBuilt }
