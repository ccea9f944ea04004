// Package local is the volume driver "local". A volume is the directory <root>/<name>/_data,
// which appears and disappears by one rename. Containers write below _data, so it is accessed by
// descriptors only. The rest of <root>/<name> is the engine's and is removed with the volume.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage/tree"
	"golang.org/x/sys/unix"
)

// Name is how the driver is called.
const Name = "local"

const (
	data     = "_data"
	making   = ".new-"
	removing = ".removing-"
)

var nameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckName says whether a volume may be called so, in Docker's words; class InvalidArgument.
func CheckName(name string) error {
	switch {
	case len(name) == 1:
		return errclass.Invalid("volume name is too short, names should be at least two alphanumeric characters")
	case !nameRE.MatchString(name) || len(name) > 255:
		return errclass.Invalid("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. "+
			"If you intended to pass a host directory, use absolute path", name)
	}
	return nil
}

// Driver is the driver local.
type Driver struct {
	root string
	dir  *os.File // of root
	log  *slog.Logger
}

// Open opens the volumes below root, which is made, and finishes what a crash left half done.
// Close ends it.
func Open(root string, log *slog.Logger) (*Driver, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	d := &Driver{root: root, dir: dir, log: log}
	entries, err := os.ReadDir(root)
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, making) || strings.HasPrefix(name, removing) {
			if err := tree.Remove(d.at(), name); err != nil {
				log.Warn("removing what is left of a volume", "volume", name, "error", err)
			}
		}
	}
	return d, nil
}

// Close lets go of the directory. No other call may be under way.
func (d *Driver) Close() error { return d.dir.Close() }

func (d *Driver) at() int { return int(d.dir.Fd()) }

// Describe implements driver.Driver.
func (d *Driver) Describe(context.Context) driver.Description {
	return driver.Description{Name: Name, Scope: driver.ScopeLocal, OwnsData: true}
}

// Create implements driver.Driver. Options are not built yet.
func (d *Driver) Create(_ context.Context, name string, opts map[string]string) (err error) {
	if err := CheckName(name); err != nil {
		return err
	}
	if len(opts) > 0 {
		return errclass.NotImplemented("options of the local volume driver are not built yet")
	}
	tmp := making + name
	if err := unix.Mkdirat(d.at(), tmp, 0o701); err != nil {
		return fmt.Errorf("making %s: %w", tmp, err)
	}
	defer func() {
		if err != nil {
			_ = tree.Remove(d.at(), tmp)
		}
	}()
	if err := unix.Mkdirat(d.at(), tmp+"/"+data, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", tmp, err)
	}
	// The umask is not the volume's.
	if err := unix.Fchmodat(d.at(), tmp+"/"+data, 0o755, 0); err != nil {
		return fmt.Errorf("making %s: %w", tmp, err)
	}
	err = unix.Renameat2(d.at(), tmp, d.at(), name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) && d.has(name) {
		_ = tree.Remove(d.at(), tmp)
		return nil
	}
	if err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	return nil
}

// has tells that a volume is there.
func (d *Driver) has(name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(d.at(), name+"/"+data, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && CheckName(name) == nil
}

// Remove implements driver.Driver.
func (d *Driver) Remove(_ context.Context, name string) error {
	if CheckName(name) != nil {
		return nil //nolint:nilerr // none is called so
	}
	err := unix.Renameat(d.at(), name, d.at(), removing+name)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing: %w", err)
	}
	if err := tree.Remove(d.at(), removing+name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// It is gone for everybody: the next start goes on.
		d.log.Warn("removing a volume's files", "volume", name, "error", err)
	}
	return nil
}

// Get implements driver.Driver.
func (d *Driver) Get(_ context.Context, name string) (driver.Volume, error) {
	if !d.has(name) {
		return driver.Volume{}, errclass.NotFound("no such volume")
	}
	return driver.Volume{Name: name, Path: d.path(name)}, nil
}

// List implements driver.Driver.
func (d *Driver) List(context.Context) ([]driver.Volume, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return nil, fmt.Errorf("listing volumes: %w", err)
	}
	var list []driver.Volume
	for _, e := range entries {
		if d.has(e.Name()) {
			list = append(list, driver.Volume{Name: e.Name(), Path: d.path(e.Name())})
		}
	}
	return list, nil
}

func (d *Driver) path(name string) string { return filepath.Join(d.root, name, data) }

// Path implements driver.Driver.
func (d *Driver) Path(_ context.Context, name string) (string, error) { return d.path(name), nil }

// Mount implements driver.Driver: the data is always there.
func (d *Driver) Mount(_ context.Context, name, _ string) (string, error) { return d.path(name), nil }

// Unmount implements driver.Driver.
func (d *Driver) Unmount(context.Context, string, string) error { return nil }
