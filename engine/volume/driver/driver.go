// Package driver is the seam of volume drivers. A driver creates volumes and says at which path
// their data can be reached while a container runs. Package local keeps volumes in directories
// below the data-root; package volplugin calls plugins of Docker's protocol. drivertest.Run is
// the suite that every driver passes.
package driver

import (
	"context"
	"time"

	"github.com/gantry/gantry/internal/errclass"
)

// The scopes of a driver: whether a volume is known on this machine alone.
const (
	ScopeLocal  = "local"
	ScopeGlobal = "global"
)

// Description is what differs between drivers. Nobody compares names.
type Description struct {
	Name  string
	Scope string // ScopeLocal or ScopeGlobal
	// OwnsData tells that the data lies below the engine's data-root: it is counted by
	// `system df` and freed by prune.
	OwnsData bool
	// Mounts tells that Mount and Unmount do something. The engine then remembers on the disk
	// who has a volume mounted, so that no daemon's death leaves a mount behind.
	Mounts bool
}

// Volume is what a driver says of a volume.
type Volume struct {
	Name string
	// Path is where the data is on the host; "" while it is not mounted anywhere.
	Path    string
	Created time.Time // zero: not told
	// Status is what the driver has to say beside, for inspect; nil: nothing.
	Status map[string]any
}

// Driver makes volumes. All methods are safe for concurrent use; the engine calls those that
// change one volume one at a time. A driver counts its users by the ids of Mount. Nobody closes
// it: a driver that holds something is closed by who made it.
//
// Errors: InvalidArgument for a name or options that it does not take, NotFound for a volume that
// is not there, Unavailable when the driver cannot be reached (whether the call took effect is
// then unknown, and it may be made again), NotImplemented for what it cannot; others are its own.
type Driver interface {
	// Describe tells what the driver is.
	Describe(ctx context.Context) Description
	// Create makes a volume. One that is there already is left as it is, without error.
	Create(ctx context.Context, name string, opts map[string]string) error
	// Remove deletes a volume with its data. One that is not there is no error. The engine
	// does not call it while the volume has users.
	Remove(ctx context.Context, name string) error
	// Get tells of one volume; class NotFound without.
	Get(ctx context.Context, name string) (Volume, error)
	// List tells of all volumes that the driver knows, in any order, without Status.
	List(ctx context.Context) ([]Volume, error)
	// Path is where the volume's data is on the host; "" while it is not mounted.
	Path(ctx context.Context, name string) (string, error)
	// Mount makes the volume's data reachable for the user id, until Unmount with the same id,
	// and tells where. A second Mount with one id is the same use.
	Mount(ctx context.Context, name, id string) (path string, err error)
	// Unmount ends the use of id. One that does not use the volume is no error.
	Unmount(ctx context.Context, name, id string) error
}

// Source finds drivers that are not built in. It is safe for concurrent use; what it returns is
// not closed.
type Source interface {
	// Find returns the driver of a name. Errors: NotFound when there is none, Unavailable when
	// it cannot be reached; others say what is wrong with it.
	Find(ctx context.Context, name string) (Driver, error)
	// Names are the drivers that may be found now, sorted; some of them may turn out to be
	// none.
	Names() []string
}

// NotFound is the error for a driver of a name that nobody has, in Docker's words.
func NotFound(name string) error {
	return errclass.NotFound("error looking up volume plugin %s: plugin %q not found", name, name)
}
