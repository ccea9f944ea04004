package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// engine is one of those that are compared.
type engine struct {
	name, image string
	client      *client.Client
	cgroup      string // path of the engine's group in its hierarchy
	unified     bool   // cgroup v2
	standing    string // the container that execs run in
	connected   string // the container that is connected and disconnected

	socket, docker string        // docker is the command line, "" for none
	command        time.Duration // processor time of the commands of this round
}

func newEngine(arg, image string) (*engine, error) {
	name, socket, cgroup, docker, err := parse(arg)
	if err != nil {
		return nil, err
	}
	cl, err := client.New(client.WithHost(socket))
	if err != nil {
		return nil, err
	}
	_, err = os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return &engine{name: name, image: image, client: cl, cgroup: cgroup, unified: err == nil, socket: socket, docker: docker}, nil
}

// dir is the engine's group in the hierarchy that counts processor time.
func (e *engine) dir() string {
	if e.unified {
		return filepath.Join("/sys/fs/cgroup", e.cgroup)
	}
	return filepath.Join("/sys/fs/cgroup/cpuacct", e.cgroup)
}

// cpu is the processor time of the engine and its containers since the group was made.
func (e *engine) cpu() (time.Duration, error) {
	if !e.unified {
		b, err := os.ReadFile(filepath.Join(e.dir(), "cpuacct.usage"))
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return time.Duration(n), err
	}
	b, err := os.ReadFile(filepath.Join(e.dir(), "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s: no usage_usec in cpu.stat", e.dir())
}

// settled waits until the engine uses hardly any processor time, and returns what it has
// used. One that never rests is measured as it is after a while.
func (e *engine) settled() (time.Duration, error) {
	last, err := e.cpu()
	for try := 0; err == nil && try < 60; try++ {
		time.Sleep(15 * time.Millisecond)
		var now time.Duration
		if now, err = e.cpu(); err == nil && now-last < 100*time.Microsecond {
			return now, nil
		}
		last = now
	}
	return last, err
}

// pss is the proportional set size of the engine's own processes, in bytes, and how many
// they are.
func (e *engine) pss() (total, processes int, err error) {
	err = filepath.WalkDir(filepath.Join(e.dir(), "engine"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		pids, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			n, err := pssOf(pid)
			if err != nil {
				return err
			}
			total, processes = total+n, processes+1
		}
		return nil
	})
	return total, processes, err
}

func pssOf(pid string) (int, error) {
	f, err := os.Open("/proc/" + pid + "/smaps_rollup")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // ended meanwhile
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "Pss:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(v, "kB")))
			return n << 10, err
		}
	}
	return 0, nil
}

// create makes a container that runs args.
func (e *engine) create(ctx context.Context, network string, args ...string) (string, error) {
	res, err := e.client.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: e.image, Cmd: args},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode(network),
			Resources:   container.Resources{CgroupParent: e.cgroup + "/containers"},
		},
	})
	return res.ID, err
}

func (e *engine) remove(ctx context.Context, id string) error {
	_, err := e.client.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
	return err
}

func (e *engine) removeAll(ctx context.Context, ids []string) error {
	var first error
	for _, id := range ids {
		if err := e.remove(ctx, id); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// runMany starts containers that sleep.
func (e *engine) runMany(ctx context.Context, n int) (ids []string, err error) {
	for range n {
		id, err := e.create(ctx, "none", "/bin/sleep", "600")
		if err != nil {
			return ids, err
		}
		ids = append(ids, id)
		if _, err := e.client.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
			return ids, err
		}
	}
	return ids, nil
}

// operation is what is measured: once is the measured part.
type operation struct {
	name    string
	prepare func(context.Context, *engine) error
	once    func(context.Context, *engine) error
	clear   func(context.Context, *engine)
}

func operations() []operation {
	nothing := func(context.Context, *engine) error { return nil }
	cleared := func(context.Context, *engine) {}
	life := func(network string) func(context.Context, *engine) error {
		return func(ctx context.Context, e *engine) error { return e.life(ctx, network) }
	}
	return append([]operation{
		{name: "create+start+wait+rm, no network", prepare: nothing, once: life("none"), clear: cleared},
		{name: "create+start+wait+rm, bridge", prepare: nothing, once: life("bridge"), clear: cleared},
		{name: "exec", prepare: stand, once: execOnce, clear: fall},
	}, networkOperations()...)
}

// life is a container of true from its creation to its removal.
func (e *engine) life(ctx context.Context, network string) error {
	id, err := e.create(ctx, network, "/bin/true")
	if err != nil {
		return err
	}
	if err := e.runToEnd(ctx, id); err != nil {
		_ = e.remove(ctx, id)
		return err
	}
	return e.remove(ctx, id)
}

func (e *engine) runToEnd(ctx context.Context, id string) error {
	wait := e.client.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if _, err := e.client.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return err
	}
	select {
	case res := <-wait.Result:
		if res.StatusCode != 0 {
			return fmt.Errorf("true ended with %d", res.StatusCode)
		}
		return nil
	case err := <-wait.Error:
		return err
	}
}
