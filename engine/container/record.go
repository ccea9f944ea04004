package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// schema is the version of the records below. Newer ones are refused.
const schema = 1

// maxRecord bounds a record that is read back, in bytes.
const maxRecord = 16 << 20

// Record is a container's configuration as config.json keeps it. It is never changed
// in place: the owner replaces it whole.
type record struct {
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
	Links      []link                                    `json:"links,omitempty"`
}

// lastRecord is what is kept of a container's runs in last.json, without fsync.
type lastRecord struct {
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

// runRecord is run.json on tmpfs: what a run holds, written before it takes it.
type runRecord struct {
	Schema     int             `json:"schema"`
	Run        uint64          `json:"run"`
	Phase      string          `json:"phase"` // "starting" or "running"
	Pid        int             `json:"pid,omitempty"`
	StartTicks uint64          `json:"ticks,omitempty"` // of /proc/<pid>/stat
	Started    time.Time       `json:"started"`
	Cgroup     oci.CgroupRef   `json:"cgroup"`
	Sandbox    *network.Record `json:"sandbox,omitempty"`
	// Endpoints and Ports as inspect shows them.
	Endpoints map[string]*networktypes.EndpointSettings `json:"endpoints,omitempty"`
	Ports     networktypes.PortMap                      `json:"ports,omitempty"`
	Restarts  int                                       `json:"restarts,omitempty"`
}

func (s *Service) dir(id string) string { return filepath.Join(s.cfg.DataRoot, "containers", id) }

func (s *Service) runDir(id string) string  { return filepath.Join(s.cfg.ExecRoot, "containers", id) }
func (s *Service) logPath(id string) string { return filepath.Join(s.dir(id), id+"-json.log") }

func (s *Service) saveRecord(r *record) error {
	return atomicfile.WriteJSON(filepath.Join(s.dir(r.ID), "config.json"), r, 0o600, true)
}

func lastOf(st fsm.State, started time.Time) lastRecord {
	return lastRecord{
		Schema: schema, Run: st.Run, Running: st.Phase == fsm.Running, Ran: st.Ran, Code: st.Last.Code,
		OOM: st.Last.OOM, Error: st.Error, Started: started, Finished: st.Last.At, ManualStop: st.ManualStop,
		Restarts: st.Restarts, Dead: st.Phase == fsm.Dead,
	}
}

func (s *Service) saveLast(id string, last *lastRecord) error {
	return atomicfile.WriteJSON(filepath.Join(s.dir(id), "last.json"), last, 0o600, false)
}

// runFile is an open run.json. It gets a line for every state of the run, and the last
// whole line counts: appending is one write to tmpfs, which a kill -9 leaves done or torn.
type runFile struct{ f *os.File }

// openRun makes a container's run.json anew. The caller closes it.
func (s *Service) openRun(id string) (*runFile, error) {
	dir := s.runDir(id)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "run.json"), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &runFile{f}, nil
}

// appendRun opens the run.json that is there. The caller closes it.
func (s *Service) appendRun(id string) (*runFile, error) {
	f, err := os.OpenFile(filepath.Join(s.runDir(id), "run.json"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return &runFile{f}, nil
}

func (r *runFile) save(rec *runRecord) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	_, err = r.f.Write(append(data, '\n'))
	return err
}

// readRun reads what run.json says last; class NotFound when it is not there.
func (s *Service) readRun(id string) (*runRecord, error) {
	path := filepath.Join(s.runDir(id), "run.json")
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for len(data) > 0 {
		data = bytes.TrimSuffix(data, []byte{'\n'})
		i := bytes.LastIndexByte(data, '\n') + 1
		rec := &runRecord{}
		if err := json.Unmarshal(data[i:], rec); err == nil {
			return rec, checkSchema(path, rec.Schema)
		}
		data = data[:i]
	}
	return nil, fmt.Errorf("reading %s: no whole record", path)
}

func (s *Service) dropRun(id string) error { return os.RemoveAll(s.runDir(id)) }

// readJSON reads a record of ours, bounded. Class NotFound when it is not there; a newer
// version's is refused.
func readJSON(path string, v any, version func() int) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return checkSchema(path, version())
}

func checkSchema(path string, got int) error {
	if got < 1 || got > schema {
		return fmt.Errorf("%s has schema version %d, this daemon knows up to %d", path, got, schema)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errclass.NotFound("%w", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord))
}
