package oci

import (
	"cmp"
	"context"
	"encoding/json"
	"math"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/launch/hook"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// RunHooks runs hooks of one kind ("poststart", "poststop", …) in the caller's
// namespaces, one after the other, with state as JSON on their standard input, and
// returns the first failure: later ones do not run then. A hook that takes longer
// than its timeout, or than ctx, is killed. Class ErrInvalidArgument for hooks
// that the spec forbids.
func RunHooks(ctx context.Context, kind string, hooks []specs.Hook, state *specs.State) error {
	if len(hooks) == 0 {
		return nil
	}
	hs, err := digestHooks(kind, hooks)
	if err != nil {
		return err
	}
	b, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return hook.RunAll(kind, hs, b, ctx.Done())
}

func digestHooks(kind string, in []specs.Hook) ([]initmsg.Hook, error) {
	var out []initmsg.Hook
	for i := range in {
		h := initmsg.Hook{Path: in[i].Path, Args: in[i].Args, Env: in[i].Env}
		if t := in[i].Timeout; t != nil {
			if *t <= 0 || *t > math.MaxInt32 {
				return nil, errclass.Invalid("%s hook #%d: timeout %d is not positive", kind, i, *t)
			}
			h.Timeout = uint32(*t)
		}
		out = append(out, h)
	}
	return out, nil
}

// planHooks says which hooks init runs, and when it waits for ours.
func (s *starting) planHooks(o *CreateOpts, m *initmsg.Message) error {
	h := o.Spec.Hooks
	if h == nil {
		return nil
	}
	e := &m.Extra
	var err error
	if e.CreateContainer, err = digestHooks("createContainer", h.CreateContainer); err != nil {
		return err
	}
	if e.StartContainer, err = digestHooks("startContainer", h.StartContainer); err != nil {
		return err
	}
	prestart := h.Prestart //nolint:staticcheck // deprecated, and in use
	ours := len(prestart)+len(h.CreateRuntime) != 0
	if !ours && len(e.CreateContainer)+len(e.StartContainer) == 0 {
		return nil
	}
	// The version is the configuration's, as with runc: hooks that were written for
	// it understand the state.
	state := specs.State{
		Version: cmp.Or(o.Spec.Version, specs.Version), ID: o.ID, Status: specs.StateCreating, Pid: s.child.pid,
		Bundle: o.Bundle, Annotations: o.Spec.Annotations,
	}
	creating := state
	if e.StateCreating, err = json.Marshal(&state); err != nil {
		return err
	}
	state.Status = specs.StateCreated
	if e.StateCreated, err = json.Marshal(&state); err != nil {
		return err
	}
	e.HookSync = ours
	s.runtimeHooks = func() error {
		if err := RunHooks(s.ctx, "prestart", prestart, &creating); err != nil {
			return err
		}
		return RunHooks(s.ctx, "createRuntime", h.CreateRuntime, &creating)
	}
	return nil
}
