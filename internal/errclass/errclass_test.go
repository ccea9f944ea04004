package errclass

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

type marked struct{ error }

func (marked) NotFound() {}

func TestClassWithoutItsWords(t *testing.T) {
	cause := errors.New("cause")
	for want, err := range map[error]error{
		errdefs.ErrNotFound:           NotFound("x %w", cause),
		errdefs.ErrInvalidArgument:    Invalid("x %w", cause),
		errdefs.ErrConflict:           Conflict("x %w", cause),
		errdefs.ErrNotModified:        NotModified("x %w", cause),
		errdefs.ErrPermissionDenied:   Forbidden("x %w", cause),
		errdefs.ErrUnauthenticated:    Unauthorized("x %w", cause),
		errdefs.ErrUnavailable:        Unavailable("x %w", cause),
		errdefs.ErrNotImplemented:     NotImplemented("x %w", cause),
		errdefs.ErrInternal:           Internal("x %w", cause),
		errdefs.ErrFailedPrecondition: With(errdefs.ErrFailedPrecondition, fmt.Errorf("x %w", cause)),
	} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			wrapped := fmt.Errorf("w: %w", err)
			if err.Error() != "x cause" || !errors.Is(wrapped, cause) || !errors.Is(wrapped, want) || !errors.Is(Of(wrapped), want) {
				t.Errorf("%v: %v, class %v", want, err, Of(wrapped))
			}
		})
	}
	if With(errdefs.ErrNotFound, nil) != nil {
		t.Error("nil became an error")
	}
	if !errors.Is(Of(cause), errdefs.ErrUnknown) || !errors.Is(Of(fmt.Errorf("w: %w", marked{cause})), errdefs.ErrNotFound) {
		t.Error("Of")
	}
}
