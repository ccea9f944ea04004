// Package records keeps networks on disk: one JSON file each.
package records

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

// Record is <data-root>/networks/<id>.json. Save sets the version.
type Record struct {
	Version int             `json:"version"`
	Network network.Network `json:"network"`
	// Pooled are the subnets that nobody chose.
	Pooled []netip.Prefix `json:"pooled,omitempty"`
	// PoolIDs are what an IPAM plugin calls the network's subnets, in their order.
	PoolIDs []string `json:"pool_ids,omitempty"`
}

// Store keeps network records in one directory. Not safe for concurrent use of one ID.
type Store struct{ Dir string }

// New makes the directory below the daemon's data-root.
func New(dataRoot string) (Store, error) {
	s := Store{filepath.Join(dataRoot, "networks")}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return s, fmt.Errorf("network records: %w", err)
	}
	return s, nil
}

func (s Store) path(id string) string { return filepath.Join(s.Dir, id+".json") }

// Save writes a record: temp, fsync, rename.
func (s Store) Save(r Record) error {
	r.Version = recordVersion
	return atomicfile.WriteJSON(s.path(r.Network.ID), r, 0o600, true)
}

// Remove removes a record; one that is not there is no error.
func (s Store) Remove(id string) error {
	err := os.Remove(s.path(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Load reads all records. One that cannot be read, or is of a newer schema, is an
// error: starting without a network would give its addresses to others.
func (s Store) Load() ([]Record, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("network records: %w", err)
	}
	var out []Record
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !id.Valid(name) {
			continue
		}
		path := filepath.Join(s.Dir, e.Name())
		if info, err := e.Info(); err != nil || info.Size() > maxRecord {
			return nil, fmt.Errorf("network record %s: unreadable or too large", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("network records: %w", err)
		}
		var r Record
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
