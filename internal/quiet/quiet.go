// Package quiet keeps the log lines of containerd's libraries out of the daemon's log: what
// matters of them is returned as errors.
package quiet

import (
	"context"
	"io"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// Context returns a context under which containerd's packages log nothing.
func Context(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}
