package ocicli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shown is a container as state and list print it, with runc's names.
type shown struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func (c *container) show() *shown {
	s := &shown{
		Version: c.OCIVersion, ID: c.ID, Pid: c.Pid, Status: c.status(), Bundle: c.Bundle, Rootfs: c.Rootfs,
		Created: c.Created, Annotations: c.Annots,
	}
	if s.Version == "" {
		s.Version = specs.Version
	}
	if s.Status == specs.StateStopped {
		s.Pid = 0
	}
	return s
}

func setupState(a *app, _ *flags) func([]string) error {
	return func(args []string) error {
		c, err := a.store.open(args[0])
		if err != nil {
			return err
		}
		defer c.close()
		b, err := json.MarshalIndent(c.show(), "", "  ")
		if err != nil {
			return err
		}
		_, err = a.out.Write(b)
		return err
	}
}

func setupList(a *app, f *flags) func([]string) error {
	format, quiet := "table", false
	f.str(&format, "format,f", "FORMAT", "table or json")
	f.boolean(&quiet, "quiet,q", "print ids only")
	return func([]string) error {
		all, err := a.store.all(a.err)
		if err != nil {
			return err
		}
		switch {
		case quiet:
			for _, s := range all {
				fmt.Fprintln(a.out, s.ID)
			}
			return nil
		case format == "json":
			return json.NewEncoder(a.out).Encode(all)
		case format != "table":
			return usageError("invalid format option")
		}
		w := tabwriter.NewWriter(a.out, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range all {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return w.Flush()
	}
}

// all lists the containers by id; nil when there are none. Those that cannot be read are
// reported to errs and left out.
func (s store) all(errs io.Writer) ([]*shown, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	var out []*shown
	for _, e := range entries {
		if !e.IsDir() || checkID(e.Name()) != nil {
			continue
		}
		c, err := s.open(e.Name())
		if err != nil {
			if !errors.Is(err, errNotExist) { // just deleted
				fmt.Fprintf(errs, "load container %s: %v\n", e.Name(), err)
			}
			continue
		}
		shown := c.show()
		var st unix.Stat_t
		if err := unix.Fstat(int(c.dir.Fd()), &st); err == nil {
			shown.Owner = userName(st.Uid)
		}
		c.close()
		out = append(out, shown)
	}
	return out, nil
}

// maxPasswd bounds what is read of /etc/passwd.
const maxPasswd = 1 << 20

// userName is a user's name on the host, or its number as "#1000".
func userName(uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	if f, err := os.Open("/etc/passwd"); err == nil {
		defer f.Close()
		b := make([]byte, maxPasswd)
		n, _ := f.Read(b)
		sc := bufio.NewScanner(bytes.NewReader(b[:n]))
		for sc.Scan() {
			if p := strings.SplitN(sc.Text(), ":", 4); len(p) == 4 && p[2] == want {
				return p[0]
			}
		}
	}
	return "#" + want
}
