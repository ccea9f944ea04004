package container

import (
	"testing"

	"github.com/gantry/gantry/engine/image"
	"github.com/moby/moby/api/types/container"
)

// What a client sends to say "nothing" is kept as nothing, as with Docker.
func TestNothingIsKeptAsNothing(t *testing.T) {
	s := newRig(t).Service
	unset, none := int64(-1), int64(0)
	h := &container.HostConfig{Resources: container.Resources{MemorySwappiness: &unset, PidsLimit: &none}}
	c := &container.Config{Volumes: map[string]struct{}{}, Cmd: []string{"x"}}
	if _, err := s.adapt(c, h); err != nil {
		t.Fatal(err)
	}
	mergeImage(c, &image.Image{})
	if h.MemorySwappiness != nil || h.PidsLimit != nil || c.Volumes != nil {
		t.Errorf("%v %v %v", h.MemorySwappiness, h.PidsLimit, c.Volumes)
	}
}
