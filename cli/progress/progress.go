// Package progress shows the message stream of pull, push and load: lines that are
// redrawn in place on a terminal, one line a change elsewhere.
package progress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/gantry/gantry/cli/terminal"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client/pkg/jsonmessage"
)

// Display copies the messages of r to out until its end. An error message of the daemon
// comes back as an error with the daemon's words; a cancelled ctx ends it early with the
// context's error, provided closing r is the caller's answer to ctx. aux, when not nil,
// gets what messages carry beside text.
func Display(ctx context.Context, r io.Reader, out *terminal.Out, aux func(jsonstream.Message)) error {
	if aux == nil {
		aux = func(jsonstream.Message) {}
	}
	err := jsonmessage.DisplayMessages(messages(r), out.Stream(), jsonmessage.WithAuxCallback(aux))
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	var je *jsonstream.Error
	if errors.As(err, &je) {
		return errors.New(je.Message)
	}
	return err
}

// Drain reads the messages of r without showing them.
func Drain(r io.Reader) error {
	for m, err := range messages(r) {
		if err != nil {
			return err
		}
		if m.Error != nil {
			return errors.New(m.Error.Message)
		}
	}
	return nil
}

func messages(r io.Reader) func(yield func(jsonstream.Message, error) bool) {
	dec := json.NewDecoder(r)
	return func(yield func(jsonstream.Message, error) bool) {
		for {
			var m jsonstream.Message
			err := dec.Decode(&m)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(m, fmt.Errorf("reading progress: %w", err))
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}
