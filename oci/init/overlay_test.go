package ociinit

import (
	"testing"

	"github.com/gantry/gantry/oci/plan/initmsg"
)

// TestOverlayOptions: layers are named from the directory that they share.
func TestOverlayOptions(t *testing.T) {
	for _, c := range []struct {
		root      initmsg.Root
		dir, opts string
	}{
		{initmsg.Root{Lower: []string{"/v/s/2/fs", "/v/s/1/fs"}, Upper: "/v/s/3/fs", Work: "/v/s/3/work"}, "/v/s", "lowerdir=2/fs:1/fs,upperdir=3/fs,workdir=3/work"},
		{initmsg.Root{Lower: []string{"/v/s/1/fs", "/v/s/10/fs"}}, "/v/s", "lowerdir=1/fs:10/fs"},
		{initmsg.Root{Lower: []string{"/v/a", "/v/ab"}}, "/v", "lowerdir=a:ab"},
		{initmsg.Root{Lower: []string{"/a", "/b/c"}}, "/", "lowerdir=a:b/c"},
		{initmsg.Root{Lower: []string{"/a"}}, "/", "lowerdir=a"},
		{initmsg.Root{Lower: []string{`/x/a:b,c\d`, "/x/e"}}, "/x", `lowerdir=a\:b\,c\\d:e`},
	} {
		t.Run(c.dir+" "+c.opts, func(t *testing.T) {
			if dir, opts := overlayOptions(&c.root); dir != c.dir || opts != c.opts {
				t.Errorf("%v: %s %s", c.root.Lower, dir, opts)
			}
		})
	}
}
