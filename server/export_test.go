package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gantry/gantry/internal/errclass"
	containertypes "github.com/moby/moby/api/types/container"
)

func TestExport(t *testing.T) {
	h := serve(t)
	for _, c := range []struct {
		name   string
		export func(context.Context, io.Writer) error
		status int
		body   string
	}{
		{"whole", func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, "archive")
			return err
		}, 200, "archive"},
		{"refused", func(context.Context, io.Writer) error { return errclass.Conflict("You cannot export it") }, 409, `{"message":"You cannot export it"}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.c.export = c.export
			code, body, header := h.do(t, "GET", "/containers/x/export", nil)
			if code != c.status || body != c.body {
				t.Errorf("%d %q, want %d %q", code, body, c.status, c.body)
			}
			if ct := header.Get("Content-Type"); code == http.StatusOK && ct != "application/octet-stream" {
				t.Error(ct)
			}
		})
	}
	t.Run("fails in the middle", func(t *testing.T) {
		h.c.export = func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, strings.Repeat("x", 1<<20))
			return errors.Join(err, errors.New("broken disk"))
		}
		resp, err := h.client.Get("http://d/containers/x/export")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("an archive that was cut off looks whole: %v", err)
		}
	})
	t.Run("the client goes", func(t *testing.T) {
		ended := make(chan error, 1)
		h.c.export = func(ctx context.Context, w io.Writer) error {
			_, err := io.WriteString(w, strings.Repeat("x", 1<<20))
			if err == nil {
				<-ctx.Done()
				err = ctx.Err()
			}
			ended <- err
			return err
		}
		resp, err := h.client.Get("http://d/containers/x/export")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := <-ended; err == nil {
			t.Error("nobody was told")
		}
	})
}

func TestChanges(t *testing.T) {
	h := serve(t)
	for _, c := range []struct {
		name string
		list []containertypes.FilesystemChange
		body string
	}{
		{"none", nil, "null\n"},
		{"some", []containertypes.FilesystemChange{{Path: "/a", Kind: containertypes.ChangeDelete}}, `[{"Kind":2,"Path":"/a"}]` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.c.changes = c.list
			if code, body, _ := h.do(t, "GET", "/containers/x/changes", nil); code != 200 || body != c.body {
				t.Errorf("%d %q, want %q", code, body, c.body)
			}
		})
	}
}
