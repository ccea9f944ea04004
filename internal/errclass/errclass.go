// Package errclass makes errors that carry a class of github.com/containerd/errdefs
// without its words in their text: the message is what a person reads, the class
// is what decides status codes and exit codes.
package errclass

import (
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

// Of returns the errdefs sentinel of err's class, ErrUnknown when it has none.
// Errors that only implement a class's marker method (as moby's modules do) count.
func Of(err error) error {
	for _, c := range []struct {
		is    func(error) bool
		class error
	}{
		{errdefs.IsNotFound, errdefs.ErrNotFound},
		{errdefs.IsInvalidArgument, errdefs.ErrInvalidArgument},
		{errdefs.IsAlreadyExists, errdefs.ErrAlreadyExists},
		{errdefs.IsConflict, errdefs.ErrConflict},
		{errdefs.IsFailedPrecondition, errdefs.ErrFailedPrecondition},
		{errdefs.IsPermissionDenied, errdefs.ErrPermissionDenied},
		{errdefs.IsUnauthorized, errdefs.ErrUnauthenticated},
		{errdefs.IsUnavailable, errdefs.ErrUnavailable},
		{errdefs.IsNotImplemented, errdefs.ErrNotImplemented},
		{errdefs.IsNotModified, errdefs.ErrNotModified},
		{errdefs.IsInternal, errdefs.ErrInternal},
		{errdefs.IsResourceExhausted, errdefs.ErrResourceExhausted},
		{errdefs.IsDataLoss, errdefs.ErrDataLoss},
		{errdefs.IsAborted, errdefs.ErrAborted},
		{errdefs.IsOutOfRange, errdefs.ErrOutOfRange},
	} {
		if c.is(err) {
			return c.class
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
