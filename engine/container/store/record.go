// Package store keeps containers: their records on disk, and an index in memory with a
// snapshot of each that anybody may read. Only a container's task writes its records and
// replaces its snapshot.
package store

import (
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Schema is the version of the records below. Newer ones are refused.
const Schema = 1

// Record is a container's configuration as config.json keeps it. It is never changed
// in place: the task replaces it whole.
type Record struct {
	Schema     int                                       `json:"schema"`
	ID         string                                    `json:"id"`
	Name       string                                    `json:"name"` // without the slash
	Created    time.Time                                 `json:"created"`
	Path       string                                    `json:"path"`
	Args       []string                                  `json:"args,omitempty"`
	Config     *container.Config                         `json:"config"`
	HostConfig *container.HostConfig                     `json:"host_config"`
	Networks   map[string]*networktypes.EndpointSettings `json:"networks,omitempty"`
	Image      string                                    `json:"image"` // the image's ID
	Manifest   *ocispec.Descriptor                       `json:"manifest,omitempty"`
	Platform   string                                    `json:"platform"`
	Mounts     []mounts.Point                            `json:"mounts,omitempty"`
	Links      []Link                                    `json:"links,omitempty"`
}

// Link is a container that another one knows by an alias, on the default bridge: its hosts
// file and environment tell the address. On user-defined networks links are names in DNS
// and part of the endpoint's settings.
type Link struct {
	Target string `json:"target"` // the container's ID
	Alias  string `json:"alias"`
}

// Last is what is kept of a container's runs in last.json, without fsync.
type Last struct {
	Schema     int       `json:"schema"`
	Run        uint64    `json:"run"`
	Running    bool      `json:"running,omitempty"` // written at start: no end was recorded
	Ran        bool      `json:"ran,omitempty"`
	Code       int       `json:"code"`
	OOM        bool      `json:"oom,omitempty"`
	Error      string    `json:"error,omitempty"`
	Started    time.Time `json:"started"`
	Finished   time.Time `json:"finished"`
	ManualStop bool      `json:"manual_stop,omitempty"`
	Restarts   int       `json:"restarts,omitempty"`
	Dead       bool      `json:"dead,omitempty"`
}

// LastOf is what is to be kept of a state; started is when its last run began.
func LastOf(st fsm.State, started time.Time) Last {
	return Last{
		Schema: Schema, Run: st.Run, Running: st.Phase == fsm.Running, Ran: st.Ran, Code: st.Last.Code,
		OOM: st.Last.OOM, Error: st.Error, Started: started, Finished: st.Last.At, ManualStop: st.ManualStop,
		Restarts: st.Restarts, Dead: st.Phase == fsm.Dead,
	}
}

// Run is run.json on tmpfs: what a run holds, written before it takes it. Once published
// it is never changed in place.
type Run struct {
	Schema     int           `json:"schema"`
	Number     uint64        `json:"run"`
	Phase      string        `json:"phase"` // "starting" or "running"
	Pid        int           `json:"pid,omitempty"`
	StartTicks uint64        `json:"ticks,omitempty"` // of /proc/<pid>/stat
	Started    time.Time     `json:"started"`
	Cgroup     oci.CgroupRef `json:"cgroup"`
	// Runtime has made it; nil is our own.
	Runtime *ociruntime.Ref `json:"runtime,omitempty"`
	Sandbox *network.Record `json:"sandbox,omitempty"`
	// Endpoints and Ports as inspect shows them.
	Endpoints map[string]*networktypes.EndpointSettings `json:"endpoints,omitempty"`
	Ports     networktypes.PortMap                      `json:"ports,omitempty"`
	// Lost: output was lost while both daemon and shim were dead.
	Lost bool `json:"-"`
}
