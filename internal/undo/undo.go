// Package undo collects the steps that take back a sequence of actions when a later action
// fails. Not safe for concurrent use.
package undo

import (
	"errors"
	"slices"
)

// List holds the undo steps of the work done so far. The zero value is ready.
type List struct{ steps []func() error }

// Add appends a step that takes back what was just done.
func (l *List) Add(step func() error) { l.steps = append(l.steps, step) }

// Keep forgets all steps: the work stands.
func (l *List) Keep() { l.steps = nil }

// Run takes everything back, last first, and joins the errors. Every step runs
// whatever the others answer. Calling it again does nothing. It is meant to be
// deferred: after Keep it is a no-op.
func (l *List) Run() error {
	var errs []error
	for _, step := range slices.Backward(l.steps) {
		errs = append(errs, step())
	}
	l.steps = nil
	return errors.Join(errs...)
}
