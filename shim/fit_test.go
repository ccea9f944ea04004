package shim

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/shim/ociruntime"
)

// TestFit: a shim that is older than the daemon is asked for nothing that it would pass over.
func TestFit(t *testing.T) {
	plain := &logs.Config{Driver: "json-file", Path: "/p"}
	local := &logs.Config{Driver: "local", Path: "/l", Plain: plain}
	for name, c := range map[string]struct {
		hello Hello
		r     StartRequest
		log   *logs.Config
		class error
	}{
		"old shim, local":      {Hello{}, StartRequest{Log: local}, plain, nil},
		"old shim, json-file":  {Hello{}, StartRequest{Log: plain}, plain, nil},
		"old shim, none":       {Hello{}, StartRequest{}, nil, nil},
		"old shim, a runtime":  {Hello{}, StartRequest{Log: plain, Runtime: &ociruntime.Ref{}}, nil, errdefs.ErrFailedPrecondition},
		"this shim, local":     {Hello{Logs: []string{"json-file", "local"}}, StartRequest{Log: local}, local, nil},
		"this shim, a runtime": {Hello{Runtimes: true}, StartRequest{Log: plain, Runtime: &ociruntime.Ref{}}, plain, nil},
	} {
		t.Run(name, func(t *testing.T) {
			client := &Client{link: newLink()}
			client.link.publish(&session{hello: c.hello})
			got, err := client.fit(t.Context(), &c.r)
			if c.class != nil {
				if !errors.Is(err, c.class) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || got.Log != c.log {
				t.Errorf("%+v %v", got, err)
			}
			if name == "old shim, local" && c.r.Log != local {
				t.Error("the caller's request was changed")
			}
		})
	}
}
