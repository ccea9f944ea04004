package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	containerdlog "github.com/containerd/log"
	"github.com/gantry/gantry/internal/sysmon"
	"github.com/gantry/gantry/internal/trim"
	"github.com/gantry/gantry/internal/version"
	"github.com/spf13/pflag"
)

// gcPercent lets the small heap triple between collections, which otherwise take a
// fifth of the processor time of a request; what that leaves goes back when it is quiet.
const gcPercent = 200

// Main is the dockerd command: it runs until a signal ends it, and returns the exit
// code. newAPI makes the server over the engine.
func Main(args []string, stdout, stderr io.Writer, newAPI func(*Engine) API) int {
	cfg, showVersion, err := Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, Usage())
		return 0
	case err != nil:
		fmt.Fprintln(stderr, err)
		return 1
	case showVersion:
		fmt.Fprintf(stdout, "Docker version %s, build %s\n", version.Version, version.Commit)
		return 0
	case cfg.Validate:
		fmt.Fprintln(stdout, "configuration OK")
		return 0
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(stderr, "dockerd needs to be started with root privileges")
		return 1
	}
	level := &slog.LevelVar{}
	setLevel(level, cfg)
	log := newLogger(stderr, cfg.LogFormat, level)
	if err := libraryLog(cfg); err != nil {
		log.Warn("the libraries' log is not set up", "error", err)
	}
	if err := run(args, cfg, log, level, newAPI); err != nil {
		log.Error("the daemon failed", "error", err)
		return 1
	}
	return 0
}

func run(args []string, cfg *Config, log *slog.Logger, level *slog.LevelVar, newAPI func(*Engine) API) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	_ = sysmon.Relax() // it costs a tenth of a request's processor time, no more
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log.Info("starting up", "version", version.Version, "commit", version.Commit, "data-root", cfg.DataRoot, "exec-root", cfg.ExecRoot, "pid", os.Getpid())
	e, err := start(signals, cancel, log, func() (*Engine, error) { return New(ctx, cfg, log, level, newAPI) })
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve() }()
	notify("READY=1")
	log.Info("Daemon has completed initialization")
	stopTrim := e.trimWhenQuiet()
	defer stopTrim()

	for {
		select {
		case err := <-served:
			return errors.Join(err, e.Close())
		case s := <-signals:
			if s == syscall.SIGHUP {
				e.reloadFrom(args)
				continue
			}
			log.Info("Processing signal '" + s.String() + "'")
			notify("STOPPING=1")
			go forceOn(signals, log)
			if err := e.Close(); err != nil {
				log.Warn("the shutdown was not clean", "error", err)
			}
			log.Info("Daemon shutdown complete")
			return nil
		}
	}
}

// trimWhenQuiet gives memory back whenever nothing has happened for a while: the
// start read databases, a pull decompressed layers; the idle daemon needs little of
// that. Events tell that something happens.
func (e *Engine) trimWhenQuiet() (stop func()) {
	t := trim.New()
	_, sub := e.bus.Subscribe(time.Time{})
	go func() {
		for range sub.C() {
			t.Touch()
		}
	}()
	return func() {
		sub.Close()
		t.Stop()
	}
}

// start waits for the engine. A signal in the meantime cancels what can be cancelled;
// it is put back, so that an engine that started all the same is ended.
func start(signals chan os.Signal, cancel context.CancelFunc, log *slog.Logger, open func() (*Engine, error)) (*Engine, error) {
	type result struct {
		e   *Engine
		err error
	}
	opened := make(chan result, 1)
	go func() {
		e, err := open()
		opened <- result{e, err}
	}()
	for {
		select {
		case r := <-opened:
			return r.e, r.err
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue
			}
			log.Info("Processing signal '" + s.String() + "' during the start")
			cancel()
			r := <-opened
			if r.err == nil {
				signals <- s // for the loop that ends it
			}
			return r.e, r.err
		}
	}
}

// forceOn ends the process at once when a second signal says so.
func forceOn(signals <-chan os.Signal, log *slog.Logger) {
	for s := range signals {
		if s != syscall.SIGHUP {
			log.Warn("second signal: forced shutdown")
			os.Exit(1)
		}
	}
}

// reloadFrom reads flags and file again; a file with mistakes changes nothing.
func (e *Engine) reloadFrom(args []string) {
	notifyReloading()
	defer notify("READY=1")
	next, _, err := Parse(args)
	if err != nil {
		e.log.Error("configuration not reloaded", "error", err)
		return
	}
	e.Reload(next)
}

func setLevel(level *slog.LevelVar, c *Config) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError, "fatal": slog.LevelError + 4}
	level.Set(levels[c.LogLevel])
	if c.Debug {
		level.Set(slog.LevelDebug)
	}
}

// libraryLog sets what containerd's packages log on their own: their warnings are
// about things this engine checks itself.
func libraryLog(c *Config) error {
	level := "error"
	if c.Debug || c.LogLevel == "debug" {
		level = "debug"
	}
	if c.LogFormat == "json" {
		if err := containerdlog.SetFormat(containerdlog.JSONFormat); err != nil {
			return err
		}
	}
	return containerdlog.SetLevel(level)
}

func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey {
			a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
		}
		return a
	}}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
