package system

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sort"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/internal/version"
	systemtypes "github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type clientVersion struct {
	Platform          *systemtypes.PlatformInfo `json:",omitempty"`
	Version           string                    `json:",omitempty"`
	APIVersion        string                    `json:"ApiVersion,omitempty"`
	DefaultAPIVersion string                    `json:"DefaultAPIVersion,omitempty"`
	GitCommit         string                    `json:",omitempty"`
	GoVersion         string                    `json:",omitempty"`
	Os                string                    `json:",omitempty"`
	Arch              string                    `json:",omitempty"`
	BuildTime         string                    `json:",omitempty"`
	Context           string
}

type serverVersion struct {
	Platform      systemtypes.PlatformInfo       `json:",omitempty"`
	Components    []systemtypes.ComponentVersion `json:",omitempty"`
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string `json:"MinAPIVersion,omitempty"`
	GitCommit     string
	GoVersion     string
	Os            string
	Arch          string
	KernelVersion string `json:",omitempty"`
	Experimental  bool   `json:",omitempty"`
	BuildTime     string `json:",omitempty"`
}

type versions struct {
	Client clientVersion
	Server *serverVersion
}

// ServerOK says whether the daemon answered; templates ask it.
func (v versions) ServerOK() bool { return v.Server != nil }

func newVersionCommand(cli *command.Cli) *cobra.Command {
	var f string
	cmd := &cobra.Command{
		Use: "version [OPTIONS]", Short: "Show the Docker version information", Args: command.NoArgs,
		Annotations: map[string]string{command.AnnCategory: "10"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVersion(cmd.Context(), cli, f)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	return cmd
}

func runVersion(ctx context.Context, cli *command.Cli, f string) error {
	var tmpl *template.Template
	if f != "" {
		if f == "json" {
			f = "{{json .}}"
		}
		t, err := format.Template("version", f)
		if err != nil {
			return command.ExitError{Code: 64, Text: err.Error(), Err: err}
		}
		tmpl = t
	}
	v := versions{Client: clientVersion{
		Version: version.Version, APIVersion: client.MaxAPIVersion, DefaultAPIVersion: client.MaxAPIVersion,
		GitCommit: version.Commit, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
		BuildTime: ansi(version.BuildTime), Context: cli.ContextName(),
	}}
	cl, err := cli.Client()
	var r client.ServerVersionResult
	if err == nil {
		r, err = cl.ServerVersion(ctx, client.ServerVersionOptions{})
		v.Client.APIVersion = cl.ClientVersion()
	}
	if err == nil {
		v.Server = server(r)
	}
	var werr error
	if tmpl != nil {
		if werr = tmpl.Execute(cli.Out, v); werr == nil {
			_, werr = io.WriteString(cli.Out, "\n")
		}
	} else {
		werr = writeVersion(cli.Out, v)
	}
	if err != nil {
		return err
	}
	return werr
}

func ansi(s string) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.ANSIC)
	}
	return s
}

func server(r client.ServerVersionResult) *serverVersion {
	s := &serverVersion{
		Platform: systemtypes.PlatformInfo{Name: r.Platform.Name}, Components: r.Components,
		Version: r.Version, APIVersion: r.APIVersion, MinAPIVersion: r.MinAPIVersion,
		Os: r.Os, Arch: r.Arch, Experimental: r.Experimental, //nolint:staticcheck // deprecated, and shown by Docker's client still
	}
	for i, c := range r.Components {
		if c.Name == "Engine" {
			d := c.Details
			s.GitCommit, s.GoVersion, s.KernelVersion = d["GitCommit"], d["GoVersion"], d["KernelVersion"]
			s.BuildTime = d["BuildTime"]
			if t := ansi(d["BuildTime"]); t != d["BuildTime"] {
				d["BuildTime"] = t
				r.Components[i].Details = d
			}
		}
	}
	return s
}

func writeVersion(w io.Writer, v versions) error {
	tw := tabwriter.NewWriter(w, 20, 1, 1, ' ', 0)
	title := func(name, platform string) {
		if platform != "" {
			name += ": " + platform
		} else {
			name += ":"
		}
		fmt.Fprintln(tw, name)
	}
	c := v.Client
	title("Client", "")
	api := c.APIVersion
	if api != c.DefaultAPIVersion {
		api += " (downgraded from " + c.DefaultAPIVersion + ")"
	}
	for _, kv := range [][2]string{
		{"Version", c.Version},
		{"API version", api},
		{"Go version", c.GoVersion},
		{"Git commit", c.GitCommit},
		{"Built", c.BuildTime},
		{"OS/Arch", c.Os + "/" + c.Arch},
		{"Context", c.Context},
	} {
		fmt.Fprintf(tw, " %s:\t%s\n", kv[0], kv[1])
	}
	if s := v.Server; s != nil {
		fmt.Fprintln(tw)
		title("Server", s.Platform.Name)
		for _, comp := range s.Components {
			writeComponent(tw, comp)
		}
	}
	return tw.Flush()
}

func writeComponent(w io.Writer, comp systemtypes.ComponentVersion) {
	fmt.Fprintf(w, " %s:\n  Version:\t%s\n", comp.Name, comp.Version)
	d := comp.Details
	if comp.Name == "Engine" {
		fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n", d["ApiVersion"], d["MinAPIVersion"])
		fmt.Fprintf(w, "  Go version:\t%s\n  Git commit:\t%s\n  Built:\t%s\n  OS/Arch:\t%s/%s\n  Experimental:\t%s\n",
			d["GoVersion"], d["GitCommit"], d["BuildTime"], d["Os"], d["Arch"], d["Experimental"])
		return
	}
	keys := make([]string, 0, len(d))
	for k := range d {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		fmt.Fprintf(w, "  %s:\t%s\n", k, d[k])
	}
}
