package oci

import (
	"fmt"
	"os"
	"path/filepath"
)

// allowVolatile takes away overlayfs's note that the work directory was mounted volatile. It is there so that nobody
// takes for whole what the machine's end made of the upper layer: whoever asks for a volatile mount keeps no layer over
// that.
func allowVolatile(o *Overlay) error {
	if o == nil || !o.Volatile || o.Work == "" {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(o.Work, "work", "incompat")); err != nil {
		return fmt.Errorf("prepare the overlay's work directory: %w", err)
	}
	return nil
}
