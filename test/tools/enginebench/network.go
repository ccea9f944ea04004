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
	secondNet = "enginebench2"
)

// networkOperations measure what networks cost.
func networkOperations() []operation {
	cleared := func(ctx context.Context, e *engine) { _ = e.removeNetwork(ctx, benchNet) }
	prepared := func(ctx context.Context, e *engine) error { return e.createNetwork(ctx, benchNet) }
	return []operation{
		{name: "network: start on a user network", prepare: prepared, once: func(ctx context.Context, e *engine) error { return e.life(ctx, benchNet) }, clear: cleared},
		{name: "network: the same with a published port", prepare: prepared, once: publishedLife, clear: cleared},
		{name: "network: connect + disconnect a second one", prepare: standOnNetwork, once: connectOnce, clear: fallOffNetwork},
		{
			name: "network: create + rm", prepare: func(context.Context, *engine) error { return nil },
			once: func(ctx context.Context, e *engine) error {
				return errors.Join(e.createNetwork(ctx, benchNet), e.removeNetwork(ctx, benchNet))
			},
			clear: cleared,
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
	if err := errors.Join(e.createNetwork(ctx, benchNet), e.createNetwork(ctx, secondNet)); err != nil {
		return err
	}
	id, err := e.create(ctx, benchNet, "/bin/sleep", "3600")
	if err != nil {
		return err
	}
	e.standing = id
	_, err = e.client.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return err
}

func connectOnce(ctx context.Context, e *engine) error {
	_, err := e.client.NetworkConnect(ctx, secondNet, client.NetworkConnectOptions{Container: e.standing})
	if err != nil {
		return err
	}
	_, err = e.client.NetworkDisconnect(ctx, secondNet, client.NetworkDisconnectOptions{Container: e.standing})
	return err
}

func fallOffNetwork(ctx context.Context, e *engine) {
	_ = e.remove(ctx, e.standing)
	_ = e.removeNetwork(ctx, benchNet)
	_ = e.removeNetwork(ctx, secondNet)
}
