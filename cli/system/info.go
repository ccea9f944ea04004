package system

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"

	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/internal/version"
	systemtypes "github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type clientInfo struct {
	Debug bool
	clientVersion
	Plugins  []struct{}
	Warnings []string
}

type info struct {
	*systemtypes.Info `json:",omitempty"`
	ServerErrors      []string `json:",omitempty"`
	ClientInfo        *clientInfo
	ClientErrors      []string `json:",omitempty"`
}

func newInfoCommand(cli *command.Cli) *cobra.Command {
	var f string
	cmd := &cobra.Command{
		Use: "info [OPTIONS]", Short: "Display system-wide information", Args: command.NoArgs,
		Annotations: map[string]string{command.AnnCategory: "12", command.AnnAliases: "docker system info, docker info"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runInfo(cmd.Context(), cli, f)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	return cmd
}

func runInfo(ctx context.Context, cli *command.Cli, f string) error {
	v := info{Info: &systemtypes.Info{}, ClientInfo: &clientInfo{
		Debug: cli.Globals.Debug, Plugins: []struct{}{},
		clientVersion: clientVersion{
			Version: version.Version, DefaultAPIVersion: client.MaxAPIVersion, GitCommit: version.Commit,
			GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
			BuildTime: ansi(version.BuildTime), Context: cli.ContextName(),
		},
	}}
	cl, err := cli.Client()
	if err == nil {
		var r client.SystemInfoResult
		if r, err = cl.Info(ctx, client.InfoOptions{}); err == nil {
			v.Info = &r.Info
		}
	}
	if err != nil {
		v.ServerErrors = append(v.ServerErrors, command.Text(err))
	}
	if f != "" {
		if f == "json" {
			f = "{{json .}}"
		}
		t, terr := format.Template("", f)
		if terr != nil {
			return command.ExitError{Code: 64, Text: terr.Error(), Err: terr}
		}
		if err := t.Execute(cli.Out, v); err != nil {
			return err
		}
		fmt.Fprintln(cli.Out)
		if len(v.ServerErrors) > 0 {
			return command.ExitError{Code: 1, Text: strings.Join(v.ServerErrors, "\n")}
		}
		return nil
	}
	writeClient(cli.Out, v.ClientInfo)
	fmt.Fprintln(cli.Out, "\nServer:")
	if len(v.ServerErrors) > 0 {
		for _, e := range v.ServerErrors {
			fmt.Fprintln(cli.Err, e)
		}
		return command.ExitError{Code: 1, Text: "errors pretty printing info"}
	}
	writeServer(cli.Out, v.Info)
	for _, w := range v.Info.Warnings {
		fmt.Fprintln(cli.Err, w)
	}
	return nil
}

func writeClient(w io.Writer, c *clientInfo) {
	fmt.Fprintf(w, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %t\n", c.Version, c.Context, c.Debug)
}

func writeServer(w io.Writer, i *systemtypes.Info) {
	line := func(indent int, label string, v any) {
		if s := fmt.Sprint(v); s != "" {
			fmt.Fprintf(w, "%s%s: %s\n", strings.Repeat(" ", indent), label, s)
		}
	}
	line(1, "Containers", i.Containers)
	line(2, "Running", i.ContainersRunning)
	line(2, "Paused", i.ContainersPaused)
	line(2, "Stopped", i.ContainersStopped)
	line(1, "Images", i.Images)
	line(1, "Server Version", i.ServerVersion)
	line(1, "Storage Driver", i.Driver)
	for _, p := range i.DriverStatus {
		line(2, p[0], p[1])
	}
	line(1, "Logging Driver", i.LoggingDriver)
	line(1, "Cgroup Driver", i.CgroupDriver)
	line(1, "Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(w, " Plugins:")
	fmt.Fprintln(w, "  Volume:", strings.Join(i.Plugins.Volume, " "))
	fmt.Fprintln(w, "  Network:", strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		fmt.Fprintln(w, "  Authorization:", strings.Join(i.Plugins.Authorization, " "))
	}
	fmt.Fprintln(w, "  Log:", strings.Join(i.Plugins.Log, " "))
	if len(i.CDISpecDirs) > 0 {
		fmt.Fprintln(w, " CDI spec directories:")
		for _, d := range i.CDISpecDirs {
			fmt.Fprintf(w, "  %s\n", d)
		}
	}
	state := i.Swarm.LocalNodeState
	if state == "" {
		state = "inactive"
	}
	line(1, "Swarm", state)
	runtimes := make([]string, 0, len(i.Runtimes))
	for name := range i.Runtimes {
		runtimes = append(runtimes, name)
	}
	sort.Strings(runtimes)
	if len(runtimes) > 0 {
		fmt.Fprintln(w, " Runtimes:", strings.Join(runtimes, " "))
		line(1, "Default Runtime", i.DefaultRuntime)
	}
	line(1, "Init Binary", i.InitBinary)
	line(1, "containerd version", i.ContainerdCommit.ID)
	line(1, "runc version", i.RuncCommit.ID)
	line(1, "init version", i.InitCommit.ID)
	if len(i.SecurityOptions) > 0 {
		writeSecurity(w, i.SecurityOptions)
	}
	writeHost(w, i, line)
}

func writeSecurity(w io.Writer, opts []string) {
	fmt.Fprintln(w, " Security Options:")
	for _, o := range opts {
		for n, kv := range strings.Split(o, ",") {
			k, v, _ := strings.Cut(kv, "=")
			switch {
			case n == 0 && k == "name":
				fmt.Fprintf(w, "  %s\n", v)
			case k == "profile":
				fmt.Fprintf(w, "   Profile: %s\n", v)
			default:
				fmt.Fprintf(w, "   %s: %s\n", k, v)
			}
		}
	}
}

func writeHost(w io.Writer, i *systemtypes.Info, line func(int, string, any)) {
	line(1, "Kernel Version", i.KernelVersion)
	line(1, "Operating System", i.OperatingSystem)
	line(1, "OSType", i.OSType)
	line(1, "Architecture", i.Architecture)
	line(1, "CPUs", i.NCPU)
	line(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	line(1, "Name", i.Name)
	line(1, "ID", i.ID)
	line(1, "Docker Root Dir", i.DockerRootDir)
	line(1, "Debug Mode", i.Debug)
	if i.Debug {
		line(2, "File Descriptors", i.NFd)
		line(2, "Goroutines", i.NGoroutines)
		line(2, "System Time", i.SystemTime)
		line(2, "EventsListeners", i.NEventsListener)
	}
	line(1, "HTTP Proxy", i.HTTPProxy)
	line(1, "HTTPS Proxy", i.HTTPSProxy)
	line(1, "No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		fmt.Fprintln(w, " Labels:")
		for _, l := range i.Labels {
			fmt.Fprintf(w, "  %s\n", l)
		}
	}
	line(1, "Experimental", i.ExperimentalBuild)
	if rc := i.RegistryConfig; rc != nil && (len(rc.InsecureRegistryCIDRs) > 0 || len(rc.IndexConfigs) > 0) {
		fmt.Fprintln(w, " Insecure Registries:")
		names := make([]string, 0, len(rc.IndexConfigs))
		for name, idx := range rc.IndexConfigs {
			if !idx.Secure {
				names = append(names, name)
			}
		}
		sort.Strings(names)
		for _, n := range names {
			fmt.Fprintf(w, "  %s\n", n)
		}
		for _, c := range rc.InsecureRegistryCIDRs {
			fmt.Fprintf(w, "  %s\n", c)
		}
	}
	if rc := i.RegistryConfig; rc != nil && len(rc.Mirrors) > 0 {
		fmt.Fprintln(w, " Registry Mirrors:")
		for _, m := range rc.Mirrors {
			fmt.Fprintf(w, "  %s\n", m)
		}
	}
	line(1, "Live Restore Enabled", i.LiveRestoreEnabled)
	line(1, "Product License", i.ProductLicense)
	if len(i.DefaultAddressPools) > 0 {
		fmt.Fprintln(w, " Default Address Pools:")
		for _, p := range i.DefaultAddressPools {
			fmt.Fprintf(w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	if fw := i.FirewallBackend; fw != nil {
		line(1, "Firewall Backend", fw.Driver)
		for _, p := range fw.Info {
			line(2, p[0], p[1])
		}
	}
	fmt.Fprintln(w)
}
