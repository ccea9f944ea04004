package server

import (
	"context"
	"errors"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
)

// statusOf maps an error's class to the status of the response. This is the only
// place where that is decided.
func statusOf(err error) int {
	for _, c := range []struct {
		is     func(error) bool
		status int
	}{
		{errdefs.IsNotFound, http.StatusNotFound},
		{errdefs.IsInvalidArgument, http.StatusBadRequest},
		{errdefs.IsOutOfRange, http.StatusBadRequest},
		{errdefs.IsConflict, http.StatusConflict},
		{errdefs.IsAlreadyExists, http.StatusConflict},
		{errdefs.IsFailedPrecondition, http.StatusConflict},
		{errdefs.IsAborted, http.StatusConflict},
		{errdefs.IsUnauthorized, http.StatusUnauthorized},
		{errdefs.IsUnavailable, http.StatusServiceUnavailable},
		{errdefs.IsPermissionDenied, http.StatusForbidden},
		{errdefs.IsNotModified, http.StatusNotModified},
		{errdefs.IsNotImplemented, http.StatusNotImplemented},
	} {
		if c.is(err) {
			return c.status
		}
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusInternalServerError
}

// writeError answers with Docker's error document. 304 has no body.
func writeError(w http.ResponseWriter, status int, message string) {
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	line, _ := jsonLine(common.ErrorResponse{Message: message}) // a string always encodes
	_, _ = w.Write(line)                                        // the client is gone: nobody to tell
}

// clientGone reports whether err only says that the client went away.
func clientGone(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}
