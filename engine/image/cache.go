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

// cache keeps resolved images, so that creating a container reads no file. It is
// bounded: when it is full everything is forgotten. Safe for concurrent use.
type cache struct {
	mu   sync.RWMutex
	most int
	m    map[cacheKey]*Image
}

func newCache(most int) *cache { return &cache{most: most, m: map[cacheKey]*Image{}} }

func (c *cache) get(k cacheKey) *Image {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.m[k]
}

func (c *cache) put(k cacheKey, i *Image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= c.most {
		clear(c.m)
	}
	c.m[k] = i
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.m)
}
