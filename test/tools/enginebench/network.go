package main

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// The networks that the operations of networks use.
const (
	benchNet  = "enginebench"
	firstNet  = "enginebench1"
	secondNet = "enginebench2"
	briefNet  = "enginebench3"
)

// networkOperations measure what networks cost.
func networkOperations() []operation {
	nothing := func(context.Context, *engine) error { return nil }
	return []operation{
		{
			name: "network: start on a user network", prepare: func(ctx context.Context, e *engine) error { return e.createNetwork(ctx, benchNet) },
			once:  func(ctx context.Context, e *engine) error { return e.life(ctx, benchNet) },
			clear: func(ctx context.Context, e *engine) { _ = e.removeNetwork(ctx, benchNet) },
		},
		{name: "network: the same with a published port", prepare: nothing, once: publishedLife, clear: func(context.Context, *engine) {}},
		{name: "network: connect + disconnect a second one", prepare: standOnNetwork, once: connectOnce, clear: fallOffNetwork},
		{
			name: "network: create + rm", prepare: nothing,
			once: func(ctx context.Context, e *engine) error {
				return errors.Join(e.createNetwork(ctx, briefNet), e.removeNetwork(ctx, briefNet))
			},
			clear: func(ctx context.Context, e *engine) { _ = e.removeNetwork(ctx, briefNet) },
		},
	}
}

func (e *engine) createNetwork(ctx context.Context, name string) error {
	_, err := e.client.NetworkCreate(ctx, name, client.NetworkCreateOptions{})
	return err
}

func (e *engine) removeNetwork(ctx context.Context, name string) error {
	_, err := e.client.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	return err
}

// publishedLife is a container of true that publishes one port, from creation to removal.
func publishedLife(ctx context.Context, e *engine) error {
	port := network.MustParsePort("80/tcp")
	res, err := e.client.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: e.image, Cmd: []string{"/bin/true"}, ExposedPorts: network.PortSet{port: {}}},
		HostConfig: &container.HostConfig{
			NetworkMode:  benchNet,
			PortBindings: network.PortMap{port: {{HostPort: "18080"}}},
			Resources:    container.Resources{CgroupParent: e.cgroup + "/containers"},
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(e.runToEnd(ctx, res.ID), e.remove(ctx, res.ID))
}

// standOnNetwork has a container run on one network, and makes another.
func standOnNetwork(ctx context.Context, e *engine) error {
	if err := errors.Join(e.createNetwork(ctx, firstNet), e.createNetwork(ctx, secondNet)); err != nil {
		return err
	}
	id, err := e.create(ctx, firstNet, "/bin/sleep", "3600")
	if err != nil {
		return err
	}
	e.connected = id
	_, err = e.client.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

func connectOnce(ctx context.Context, e *engine) error {
	_, err := e.client.NetworkConnect(ctx, secondNet, client.NetworkConnectOptions{Container: e.connected})
	if err != nil {
		return err
	}
	_, err = e.client.NetworkDisconnect(ctx, secondNet, client.NetworkDisconnectOptions{Container: e.connected})
	return err
}

func fallOffNetwork(ctx context.Context, e *engine) {
	if e.connected != "" {
		_ = e.remove(ctx, e.connected)
	}
	_ = e.removeNetwork(ctx, firstNet)
	_ = e.removeNetwork(ctx, secondNet)
}
