// Package errclass makes errors that carry a class of github.com/containerd/errdefs
// without its words in their text: the message is what a person reads, the class
// is what decides status codes and exit codes.
package errclass

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

type classed struct {
	err   error
	class error
}

func (e *classed) Error() string   { return e.err.Error() }
func (e *classed) Unwrap() []error { return []error{e.err, e.class} }

// With gives err the class (a sentinel of errdefs); nil stays nil.
func With(class, err error) error {
	if err == nil {
		return nil
	}
	return &classed{err: err, class: class}
}

// Of returns the errdefs sentinel that err carries, ErrUnknown when it has none.
func Of(err error) error {
	for _, c := range []error{
		errdefs.ErrNotFound, errdefs.ErrInvalidArgument, errdefs.ErrAlreadyExists, errdefs.ErrConflict,
		errdefs.ErrFailedPrecondition, errdefs.ErrPermissionDenied, errdefs.ErrUnauthenticated,
		errdefs.ErrUnavailable, errdefs.ErrNotImplemented, errdefs.ErrNotModified, errdefs.ErrInternal,
		errdefs.ErrResourceExhausted, errdefs.ErrDataLoss, errdefs.ErrAborted, errdefs.ErrOutOfRange,
	} {
		if errors.Is(err, c) {
			return c
		}
	}
	return errdefs.ErrUnknown
}

// NotFound formats an error of class ErrNotFound (404).
func NotFound(format string, a ...any) error {
	return With(errdefs.ErrNotFound, fmt.Errorf(format, a...))
}

// Invalid formats an error of class ErrInvalidArgument (400).
func Invalid(format string, a ...any) error {
	return With(errdefs.ErrInvalidArgument, fmt.Errorf(format, a...))
}

// Conflict formats an error of class ErrConflict (409).
func Conflict(format string, a ...any) error {
	return With(errdefs.ErrConflict, fmt.Errorf(format, a...))
}

// NotModified formats an error of class ErrNotModified (304).
func NotModified(format string, a ...any) error {
	return With(errdefs.ErrNotModified, fmt.Errorf(format, a...))
}

// Forbidden formats an error of class ErrPermissionDenied (403).
func Forbidden(format string, a ...any) error {
	return With(errdefs.ErrPermissionDenied, fmt.Errorf(format, a...))
}

// Unauthorized formats an error of class ErrUnauthenticated (401).
func Unauthorized(format string, a ...any) error {
	return With(errdefs.ErrUnauthenticated, fmt.Errorf(format, a...))
}

// Unavailable formats an error of class ErrUnavailable (503).
func Unavailable(format string, a ...any) error {
	return With(errdefs.ErrUnavailable, fmt.Errorf(format, a...))
}

// NotImplemented formats an error of class ErrNotImplemented (501).
func NotImplemented(format string, a ...any) error {
	return With(errdefs.ErrNotImplemented, fmt.Errorf(format, a...))
}

// Internal formats an error of class ErrInternal (500).
func Internal(format string, a ...any) error {
	return With(errdefs.ErrInternal, fmt.Errorf(format, a...))
}
