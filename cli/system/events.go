package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/template"
	"time"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/opts"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// nanoFixed is RFC 3339 with all nine digits of the nanoseconds.
const nanoFixed = "2006-01-02T15:04:05.000000000Z07:00"

func newEventsCommand(cli *command.Cli) *cobra.Command {
	var since, until, f string
	var filter opts.Filter
	cmd := &cobra.Command{
		Use: "events [OPTIONS]", Short: "Get real time events from the server", Args: command.NoArgs,
		Annotations: map[string]string{command.AnnAliases: "docker system events, docker events"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runEvents(cmd.Context(), cli, client.EventsListOptions{Since: since, Until: until, Filters: filter.All()}, f)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&until, "until", "", "Stream events until this timestamp")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&f, "format", "", format.HelpSingle)
	return cmd
}

// wireEvent carries the deprecated fields templates and JSON output still show.
type wireEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func wire(m events.Message) wireEvent {
	w := wireEvent{Message: m}
	if m.Type == events.ContainerEventType || m.Type == events.ImageEventType {
		w.Status, w.ID = string(m.Action), m.Actor.ID
		w.From = m.Actor.Attributes["image"]
	}
	return w
}

func runEvents(ctx context.Context, cli *command.Cli, o client.EventsListOptions, f string) error {
	var tmpl *template.Template
	if f != "" {
		if f == "json" {
			f = "{{json .}}"
		}
		err := format.Check(f)
		if err == nil {
			tmpl, err = format.Template("", f)
		}
		if err == nil {
			// A field that no event has is told before the first event comes.
			err = tmpl.Execute(io.Discard, wire(events.Message{}))
		}
		if err != nil {
			return command.ExitError{Code: 64, Text: "Error parsing format: " + err.Error(), Err: err}
		}
	}
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res := cl.Events(ctx, o)
	for {
		select {
		case m := <-res.Messages:
			if err := writeEvent(cli.Out, tmpl, m); err != nil {
				return err
			}
		case err := <-res.Err:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func writeEvent(w io.Writer, tmpl *template.Template, m events.Message) error {
	if tmpl != nil {
		var b strings.Builder
		if err := tmpl.Execute(&b, wire(m)); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, b.String())
		return err
	}
	var b strings.Builder
	switch {
	case m.TimeNano != 0:
		b.WriteString(time.Unix(0, m.TimeNano).Format(nanoFixed))
	case m.Time != 0:
		b.WriteString(time.Unix(m.Time, 0).Format(nanoFixed))
	}
	fmt.Fprintf(&b, " %s %s %s", m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) > 0 {
		kvs := make([]string, 0, len(m.Actor.Attributes))
		for k, v := range m.Actor.Attributes {
			kvs = append(kvs, k+"="+v)
		}
		sort.Strings(kvs)
		fmt.Fprintf(&b, " (%s)", strings.Join(kvs, ", "))
	}
	_, err := fmt.Fprintln(w, strings.TrimPrefix(b.String(), " "))
	return err
}
