package query

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
)

const (
	// psTimeout bounds the host's ps.
	psTimeout = 10 * time.Second
	// maxPS bounds its output in bytes.
	maxPS = 16 << 20
)

// Top lists the container's processes with the host's ps, as Docker: nothing of the
// container is executed. psArgs are ps's own; "-ef" when there are none.
func (q *Reader) Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error) {
	c, err := q.index.Get(ref)
	if err != nil {
		return container.TopResponse{}, err
	}
	v := c.View()
	if !v.Phase.Up() {
		return container.TopResponse{}, c.NotRunning()
	}
	pids, err := q.shim.Pids(ctx, c.Key(v.Run))
	if err != nil {
		return container.TopResponse{}, err
	}
	args := strings.Fields(strings.Join(psArgs, " "))
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	if err := checkPS(args); err != nil {
		return container.TopResponse{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, psTimeout)
	defer cancel()
	var out, errOut limited
	cmd := exec.CommandContext(ctx, "ps", args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(errOut.String()); text != "" {
			text, _, _ = strings.Cut(text, "\n") // the rest is how to use it
			return container.TopResponse{}, errclass.Internal("ps: %s", text)
		}
		return container.TopResponse{}, errclass.Internal("ps: %w", err)
	}
	return parsePS(out.Bytes(), pids)
}

// checkPS refuses what would drop or rename the column that processes are found by.
func checkPS(args []string) error {
	for _, a := range args {
		for part := range strings.SplitSeq(a, ",") {
			if k, v, ok := strings.Cut(part, "="); ok && (strings.Contains(k, "pid") || strings.EqualFold(v, "PID")) && k != "pid" {
				return errclass.Invalid("specifying \"%s\" is not allowed", part)
			}
		}
	}
	return nil
}

// parsePS picks the rows of pids out of ps's output.
func parsePS(out []byte, pids []int) (container.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	resp := container.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	col := slices.Index(resp.Titles, "PID")
	if col < 0 {
		return resp, errclass.Internal("Couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= col {
			continue
		}
		pid, err := strconv.Atoi(f[col])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if n := len(resp.Titles); len(f) > n { // the last column, the command, has blanks
			f = append(f[:n-1:n-1], strings.Join(f[n-1:], " "))
		}
		resp.Processes = append(resp.Processes, f)
	}
	return resp, nil
}

// limited keeps at most maxPS bytes.
type limited struct{ bytes.Buffer }

var errTooLong = errors.New("output is too long")

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxPS {
		return 0, errTooLong
	}
	return l.Buffer.Write(p)
}
