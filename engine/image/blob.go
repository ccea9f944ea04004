package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/gantry/gantry/engine/image/remote"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

func quietLog() *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// digestMismatch is the error for content that is not what was asked for.
func digestMismatch(what string, got, want digest.Digest) error {
	return errclass.With(errdefs.ErrDataLoss, fmt.Errorf("%s failed verification: its digest is %s, expected %s", what, got, want))
}

// document fetches an index, manifest or configuration whole, unless it is stored
// already, and verifies it. It is not stored yet.
func (pl *puller) document(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if data, err := pl.readBlob(ctx, desc, limit); err == nil {
		return data, nil
	} else if !errdefs.IsNotFound(err) {
		return nil, err
	}
	if desc.Size > limit {
		return nil, errclass.Invalid("%s of %d bytes is larger than %d", desc.Digest, desc.Size, limit)
	}
	pl.fetched = true
	rc, err := pl.fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, remote.Error{Err: err}
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, remote.Error{Err: err}
	}
	if int64(len(data)) > limit {
		return nil, errclass.Invalid("%s is larger than %d bytes", desc.Digest, limit)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, digestMismatch("manifest", got, desc.Digest)
	}
	return data, nil
}

// save stores a document with labels that say what it refers to. One that is stored
// already gets the labels.
func (s *Service) save(ctx context.Context, desc ocispec.Descriptor, data []byte, labels map[string]string) error {
	desc = ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: int64(len(data))}
	err := content.WriteBlob(ctx, s.store.Content, "doc-"+desc.Digest.String(), bytes.NewReader(data), desc, content.WithLabels(labels))
	if err != nil {
		return fmt.Errorf("storing %s: %w", desc.Digest, err)
	}
	if len(labels) == 0 {
		return nil
	}
	info := content.Info{Digest: desc.Digest, Labels: labels}
	var fields []string
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	have, err := s.store.Content.Info(ctx, desc.Digest)
	if err != nil {
		return fmt.Errorf("storing %s: %w", desc.Digest, err)
	}
	for k, v := range labels {
		if have.Labels[k] != v {
			_, err = s.store.Content.Update(ctx, info, fields...)
			break
		}
	}
	return err
}
