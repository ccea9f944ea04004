package image

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// cacheKey is a target and the platform asked for ("" for the default).
type cacheKey struct {
	target   digest.Digest
	platform string
}

// cache keeps what was read of images, so that creating a container reads no file and
// listing images few. It is bounded: when it is full everything is forgotten. What is in
// it is shared and never changed. Safe for concurrent use.
type cache[K comparable, V any] struct {
	mu   sync.RWMutex
	most int
	m    map[K]*V
}

func newCache[K comparable, V any](most int) *cache[K, V] {
	return &cache[K, V]{most: most, m: map[K]*V{}}
}

func (c *cache[K, V]) get(k K) *V {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.m[k]
}

func (c *cache[K, V]) put(k K, v *V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, had := c.m[k]; !had && len(c.m) >= c.most {
		clear(c.m)
	}
	c.m[k] = v
}

func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.m)
}
