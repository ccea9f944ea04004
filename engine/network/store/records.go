package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/network"
)

// recordVersion is the schema of network records. Newer ones are refused.
const recordVersion = 1

// maxRecord bounds a network record in bytes.
const maxRecord = 1 << 20

// record is <data-root>/networks/<id>.json. save sets the version.
type record struct {
	Version int             `json:"version"`
	Network network.Network `json:"network"`
	// Pooled are the subnets that nobody chose.
	Pooled []netip.Prefix `json:"pooled,omitempty"`
	// PoolIDs are what an IPAM plugin calls the network's subnets, in their order.
	PoolIDs []string `json:"pool_ids,omitempty"`
}

// disk keeps network records in one directory. Not safe for concurrent use of one ID.
type disk struct{ dir string }

// Dir is where records are, and what else is remembered over restarts, below a data-root.
func Dir(dataRoot string) string { return filepath.Join(dataRoot, "networks") }

// openDisk makes the directory below the daemon's data-root.
func openDisk(dataRoot string) (disk, error) {
	d := disk{Dir(dataRoot)}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return d, fmt.Errorf("network records: %w", err)
	}
	return d, nil
}

func (d disk) path(id string) string { return filepath.Join(d.dir, id+".json") }

// save writes a record: temp, fsync, rename.
func (d disk) save(r record) error {
	r.Version = recordVersion
	return atomicfile.WriteJSON(d.path(r.Network.ID), r, 0o600, true)
}

// remove removes a record; one that is not there is no error.
func (d disk) remove(id string) error {
	err := os.Remove(d.path(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// load reads all records. One that cannot be read, or is of a newer schema, is an
// error: starting without a network would give its addresses to others.
func (d disk) load() ([]record, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("network records: %w", err)
	}
	var out []record
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !id.Valid(name) {
			continue
		}
		path := filepath.Join(d.dir, e.Name())
		if info, err := e.Info(); err != nil || info.Size() > maxRecord {
			return nil, fmt.Errorf("network record %s: unreadable or too large", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("network records: %w", err)
		}
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("network record %s: %w", path, err)
		}
		if r.Version > recordVersion {
			return nil, fmt.Errorf("network record %s has version %d, this engine knows up to %d", path, r.Version, recordVersion)
		}
		if r.Network.ID != name {
			return nil, fmt.Errorf("network record %s holds network %q", path, r.Network.ID)
		}
		out = append(out, r)
	}
	return out, nil
}

// Public is a copy of a network that whoever gets it may keep, as the API shows it: nothing
// that is a list or a map is null.
func Public(n network.Network) network.Network {
	n.Options, n.Labels = maps.Clone(n.Options), maps.Clone(n.Labels)
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.IPAM.Config = slices.Clone(n.IPAM.Config)
	if n.IPAM.Config == nil {
		n.IPAM.Config = []network.IPAMConfig{}
	}
	n.Created = n.Created.In(time.Local)
	return n
}
