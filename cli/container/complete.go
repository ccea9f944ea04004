package container

import (
	"os"
	"strconv"
	"strings"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/image"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// complete completes container names; all also those not running. At most `most` names are
// completed, 0 is any number.
func complete(cli *command.Cli, all bool, most int) image.Completer {
	return completeSome(cli, all, most, func(*container.Summary) bool { return true })
}

// notRunning are those that start and rm take.
func notRunning(c *container.Summary) bool {
	return c.State == container.StateExited || c.State == container.StateCreated
}

// completeSome completes the names of those that fit.
func completeSome(cli *command.Cli, all bool, most int, fits func(*container.Summary) bool) image.Completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cl, err := cli.Client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := cl.ContainerList(cmd.Context(), client.ContainerListOptions{All: all})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for i, c := range list.Items {
			if !fits(&list.Items[i]) {
				continue
			}
			for _, n := range c.Names {
				out = append(out, strings.TrimPrefix(n, "/"))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// Complete completes names of all containers, for other packages.
func Complete(cli *command.Cli, all bool, most int) image.Completer { return complete(cli, all, most) }

// completeFlags adds completions for values of the flags of run and create.
func completeFlags(cli *command.Cli, cmd *cobra.Command) {
	fixed := func(flag string, vals ...string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(vals, cobra.ShellCompDirectiveNoFileComp))
	}
	fixed("attach", "stderr", "stdin", "stdout")
	fixed("cgroupns", "host", "private")
	fixed("pull", "always", "missing", "never")
	fixed("restart", "no", "always", "on-failure", "unless-stopped")
	fixed("security-opt", "apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined")
	fixed("userns", "host")
	fixed("uts", "host")
	fixed("pid", "container:", "host")
	fixed("ipc", "container:", "host", "none", "private", "shareable")
	fixed("cap-add", capabilities()...)
	fixed("cap-drop", capabilities()...)
	fixed("platform", platforms()...)
	fixed("stop-signal", signals()...)
	begun := func(flag string, vals ...string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(vals, cobra.ShellCompDirectiveNoSpace))
	}
	begun("storage-opt", "size=")
	begun("ulimit", "as=", "chroot=", "core=", "cpu=", "data=", "fsize=", "locks=", "maxlogins=", "maxsyslogins=", "memlock=",
		"msgqueue=", "nice=", "nofile=", "nproc=", "priority=", "rss=", "rtprio=", "sigpending=", "stack=")
	_ = cmd.RegisterFlagCompletionFunc("env", completeEnv)
	_ = cmd.RegisterFlagCompletionFunc("link", completeLink(cli))
	_ = cmd.RegisterFlagCompletionFunc("log-driver", completeDriver(cli, func(i *system.Info) []string { return i.Plugins.Log }))
	_ = cmd.RegisterFlagCompletionFunc("volume-driver", completeDriver(cli, func(i *system.Info) []string { return i.Plugins.Volume }))
	_ = cmd.RegisterFlagCompletionFunc("volumes-from", complete(cli, true, 0))
	_ = cmd.RegisterFlagCompletionFunc("network", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		cl, err := cli.Client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := cl.NetworkList(cmd.Context(), client.NetworkListOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, n := range list.Items {
			out = append(out, n.Name)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
}

// completeEnv completes names of the environment, whose values -e NAME passes on.
func completeEnv(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		out = append(out, name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeLink completes CONTAINER: with room for the alias.
func completeLink(cli *command.Cli) image.Completer {
	return func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
		out, d := complete(cli, true, 0)(cmd, args, s)
		if d == cobra.ShellCompDirectiveError {
			return nil, d
		}
		for i := range out {
			out[i] += ":"
		}
		return out, cobra.ShellCompDirectiveNoSpace
	}
}

// completeDriver completes what the daemon says it has.
func completeDriver(cli *command.Cli, of func(*system.Info) []string) image.Completer {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		cl, err := cli.Client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		r, err := cl.Info(cmd.Context(), client.InfoOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return of(&r.Info), cobra.ShellCompDirectiveNoFileComp
	}
}

func capabilities() []string {
	return []string{
		"ALL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
		"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
		"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG",
		"CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN",
		"CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

func platforms() []string {
	return []string{
		"linux/386", "linux/amd64", "linux/arm", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/arm64/v8",
		"linux/ppc64le", "linux/s390x", "linux/riscv64", "windows/amd64", "wasip1/wasm",
	}
}

func signals() []string {
	var out []string
	for s := unix.Signal(1); s < 32; s++ {
		if n := unix.SignalName(s); len(n) > 3 {
			out = append(out, n[3:])
		}
	}
	out = append(out, "RTMIN")
	for n := 1; n <= 15; n++ {
		out = append(out, "RTMIN+"+strconv.Itoa(n))
	}
	for n := 14; n >= 1; n-- {
		out = append(out, "RTMAX-"+strconv.Itoa(n))
	}
	return append(out, "RTMAX")
}
