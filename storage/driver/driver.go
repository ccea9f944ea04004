// Package driver is the seam of union file systems. A driver keeps the unpacked layers of images
// and the writable layers of containers, and says how a container's root is assembled of them.
// Packages overlay and vfs implement it; drivertest.Run is the suite that every driver passes.
package driver

import (
	"context"
	"os"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/gantry/gantry/storage/rootview"
)

// Description are a driver's facts. Nothing outside a driver compares names to know them.
type Description struct {
	// Name is what people choose the driver by and info shows. It also names the driver's
	// layers in the metadata database, so it never changes.
	Name string
	// Shares tells that a chain is its layers' directories, topmost first, which the
	// containers of an image share. Without it the directory of a chain's topmost layer
	// holds the whole tree, and a container gets a copy of that.
	Shares bool
	// DirLabel is the label of a committed layer (snapshots.Info) that tells its directory.
	DirLabel string
}

// Driver keeps the layers below one data-root. Methods are safe for concurrent use, those
// about a container on different containers. What a crash cuts off is not seen by the
// next Open's driver, which removes what is left of it. Errors have the class named, and
// none when the file system fails.
type Driver interface {
	// Describe tells the driver's facts, the same at every call.
	Describe() Description

	// Snapshots are the unpacked layers of images, for the metadata database above it to
	// name and collect; it stays the driver's, who closes it. Beyond containerd's contract:
	//   - Prepare without a parent gives one bind mount of an empty directory. What is put
	//     there is a layer in overlayfs' form: a whiteout is a character device 0:0, an
	//     opaque directory has the attribute trusted.overlay.opaque=y.
	//   - Commit takes such a layer with snapshots.WithParent, so that the layers of an image
	//     are unpacked side by side and stacked afterwards. When it returns, what the driver
	//     itself has written is on the disk; what the caller wrote is the caller's to sync.
	//   - Usage of a committed layer is what the layer adds, in bytes.
	//   - Stat of a committed layer has Description.DirLabel. The directory is not changed
	//     until the layer is removed.
	//   - Remove of a layer that others stand on is refused (FailedPrecondition). Files may go
	//     with the next snapshots.Cleaner.Cleanup only.
	Snapshots() snapshots.Snapshotter

	// Create makes the writable layer of a container above the chain whose directories are
	// lower, topmost first; none is an empty root. Class AlreadyExists when it has one. After
	// an error nothing is left.
	Create(ctx context.Context, container string, lower []string) (Layer, error)
	// Layer finds the writable layer; class NotFound when the container has none,
	// FailedPrecondition when another driver made it.
	Layer(container string) (Layer, error)
	// View opens the root of a container that does not run, above lower as Create's, as a mount that
	// is attached nowhere (package rootview), for the caller to close. Class NotFound and
	// FailedPrecondition as Layer. ReadOnly it may be open beside others, and while the
	// container starts and writes: what changes meanwhile shows, or does not. ReadWrite it is
	// the only one who has the layer mounted, which the caller sees to; it works, too, where
	// the last run's mount kept nothing safe from the machine's end (oci.Overlay.Volatile).
	View(container string, lower []string, a rootview.Access) (*os.File, error)
	// Usage measures what the container has written above lower. Class NotFound as Layer.
	Usage(ctx context.Context, container string, lower []string) (Usage, error)
	// Remove deletes the writable layer, whichever driver made it; none is no error. From its
	// first step on the layer is gone for Layer and List.
	Remove(container string) error
	// List returns the containers that have a writable layer, of any driver.
	List() ([]string, error)

	// Close waits for work in the background and closes what Open has opened. It is called
	// once; nothing uses the driver afterwards.
	Close() error
}

// Open opens, or makes, a driver's directories below a data-root, which nobody else uses.
// The error is of class FailedPrecondition when the file system lacks what the driver
// needs. The caller closes the driver.
type Open func(dataRoot string) (Driver, error)

// Layer is where one container writes, as data: what its root file system is made of,
// besides the directories of its image's chain. Nothing is mounted for it on the host.
type Layer struct {
	// Upper and Work are what an overlay mount above the chain's directories takes.
	Upper, Work string
	// Path is instead of these the root itself, complete; nothing is to be mounted above
	// or below it.
	Path string
}

// Dirs are the directories that make up the root, topmost first, as overlayfs merges
// them. lower are those of the chain.
func (l Layer) Dirs(lower []string) []string {
	if l.Path != "" {
		return []string{l.Path}
	}
	return append([]string{l.Upper}, lower...)
}

// Usage is what a writable layer takes.
type Usage struct {
	Size   int64 // bytes of all files
	Inodes int64
}
