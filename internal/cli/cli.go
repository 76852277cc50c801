// Package cli is the callbox command: one file a subcommand, each with a Run
// method that takes its surroundings as an argument. It parses the command
// line; what the settings mean is internal/config's affair, and what a server
// does is internal/app's.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"

	"github.com/alecthomas/kong"

	"callbox/internal/app"
	"callbox/internal/config"
)

// Exit statuses.
const (
	exitOK    = 0
	exitFault = 1 // what was asked for did not work
	exitUsage = 2 // the command line or the configuration is wrong; nothing was done
)

// Env is what a command has around it.
type Env struct {
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Environ  []string // KEY=VALUE
	Terminal bool     // a person reads Stdout
	// Size is that of the terminal, in columns and lines; nil where there is none.
	Size func() (columns, lines int)
	// ReadPassword asks a person for a password, not showing what is typed;
	// nil where there is nobody to ask.
	ReadPassword func(ctx context.Context, prompt string) (string, error)
	// Hangup gets a signal when the terminal is closed or, where there is none, when a server is to reload.
	Hangup     <-chan os.Signal
	Sockets    []*os.File // that a supervisor has bound for the server
	Supervisor app.Supervisor
}

// Main runs a command line (without the program's name) in this process and returns the exit status. The context ends it in
// good order; so does hangup, unless it makes a server reload.
func Main(ctx context.Context, args []string, hangup <-chan os.Signal) int {
	env := processEnv()
	env.Hangup = hangup
	env.Supervisor, env.Sockets = supervisor()
	return Run(ctx, args, env)
}

// Run is Main with surroundings of its own.
func Run(ctx context.Context, args []string, env Env) int {
	err := run(ctx, args, env)
	var usage usageError
	var faults config.Faults
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &faults):
		fmt.Fprintf(env.Stderr, "callbox: the configuration is faulty; nothing was started\n")
		for _, line := range strings.Split(faults.Error(), "\n") {
			fmt.Fprintf(env.Stderr, "  %s\n", line)
		}
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(env.Stderr, "callbox: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(env.Stderr, "callbox: %v\n", err)
	return exitFault
}

// usageError is a command line that says nothing sensible.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// grammar is the command line. --data and --config stand before or after any
// subcommand; the other settings belong to those that use them.
type grammar struct {
	Data string `name:"data" type:"raw" group:"files" placeholder:"DIR" help:"Data directory: users, keys, secrets, certificates (callbox-data)."`
	File string `name:"config" type:"raw" group:"files" placeholder:"FILE" help:"YAML file of settings; CALLBOX_* variables come before it, flags before both."`

	Serve       serveCmd       `cmd:"" default:"withargs" help:"Run the server. This is what callbox does when nothing else is asked for."`
	User        userCmd        `cmd:"" help:"Add, list and remove users, change passwords."`
	Key         keyCmd         `cmd:"" help:"Add, list and remove API keys, with which other programs sign room tokens."`
	Invite      inviteCmd      `cmd:"" help:"Make, list and remove links by which guests join a room without an account."`
	Token       tokenCmd       `cmd:"" help:"Make a room token for one user and room."`
	Credential  credentialCmd  `cmd:"" help:"Make a TURN credential."`
	Reload      reloadCmd      `cmd:"" help:"Make the running server read its configuration again."`
	Doctor      doctorCmd      `cmd:"" help:"Examine the server and its surroundings; say what is wrong and what to do."`
	Config      configCmd      `cmd:"" help:"Show the configuration in effect, secrets masked, and where each value comes from."`
	Version     versionCmd     `cmd:"" help:"Show the version."`
	Completion  completionCmd  `cmd:"" help:"Print what makes bash, zsh or fish complete callbox's commands and flags."`
	Healthcheck healthcheckCmd `cmd:"" help:"Ask the running server whether it is well; exit status 0 or 1."`
}

// command is one subcommand, after the command line was parsed.
type command interface {
	Run(ctx context.Context, c *call) error
}

// call is one invocation of a subcommand.
type call struct {
	Env
	flags  map[string][]string // settings given as flags, as they were typed
	parsed *kong.Context
}

// size is that of the terminal; where there is none, nothing fits.
func (c *call) size() (columns, lines int) {
	if c.Size == nil {
		return 0, 0
	}
	return c.Size()
}

// config loads the configuration.
func (c *call) config() (config.Config, config.Origins, error) { return c.configWith(nil) }

// configWith loads the configuration, and reports the faults that check finds in what it names together with its own.
func (c *call) configWith(check func(config.Config) config.Faults) (config.Config, config.Origins, error) {
	return config.Load(config.Sources{Flags: c.flags, Environ: c.Environ, Check: check})
}

func run(ctx context.Context, args []string, env Env) error {
	c := &call{Env: env, flags: map[string][]string{}}
	var g grammar
	exited := false
	parser, err := kong.New(&g,
		kong.Name("callbox"),
		kong.Description("WebRTC signaling, TURN relay and call page in one server."),
		kong.Writers(env.Stdout, env.Stderr),
		kong.Exit(func(int) { exited = true }),
		kong.NamedMapper("raw", collector(c.flags)),
		kong.IgnoreFields(`^(serveCmd|doctorCmd|configCmd)\.(Data|File)$`),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(helpText),
		kong.ExplicitGroups([]kong.Group{
			{Key: "files", Title: "Files:"},
			{Key: "general", Title: "General:"},
			{Key: "web", Title: "Web:"},
			{Key: "accounts", Title: "Accounts:"},
			{Key: "relay", Title: "Relay:"},
			{Key: "signaling", Title: "Signaling:"},
			{Key: "cluster", Title: "Cluster:"},
		}),
	)
	if err != nil {
		return fmt.Errorf("command line grammar: %w", err)
	}
	parser.Model.HelpFlag.Help = "Show this help."
	if complete(parser, env.Environ) {
		return nil
	}
	parsed, err := parser.Parse(args)
	if exited { // --help has been answered
		return nil
	}
	if err != nil {
		if faults := serveFaults(args, env.Environ); faults != nil {
			return faults
		}
		return usagef("%w; callbox --help shows how", err)
	}
	selected := parsed.Selected()
	cmd, ok := selected.Target.Addr().Interface().(command)
	if !ok {
		return usagef("%s needs a subcommand; callbox --help shows how", selected.FullPath())
	}
	if _, serves := cmd.(*serveCmd); !serves || c.Terminal {
		var stop func()
		ctx, stop = endsWith(ctx, c.Hangup)
		defer stop()
		c.Hangup = nil
	}
	c.parsed = parsed
	return cmd.Run(ctx, c)
}

// endsWith is a context that a signal ends. stop waits for what it has started.
func endsWith(ctx context.Context, signal <-chan os.Signal) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-signal:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(); wait.Wait() }
}

// collector gathers what was typed for each setting. The fields stay empty:
// config parses all sources alike, and reports all faults together.
type collector map[string][]string

// Decode takes the text of one flag. A switch needs none, but takes one after an equals sign.
func (flags collector) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	text := string(config.On)
	if !flags.IsBoolFromValue(target) || ctx.Scan.Peek().Type == kong.FlagValueToken {
		if err := ctx.Scan.PopValueInto("value", &text); err != nil {
			return err
		}
	}
	flags[ctx.Value.Name] = append(flags[ctx.Value.Name], text)
	return nil
}

// IsBoolFromValue says whether a setting is a switch.
func (collector) IsBoolFromValue(v reflect.Value) bool {
	return v.Type() == reflect.TypeFor[config.Switch]()
}

// helpText adds the default of a setting to its help. Where that is 0, the help says already what 0 means.
func helpText(v *kong.Value) string {
	if v.Tag == nil || v.Tag.Get("def") == "" || v.Tag.Get("def") == "0" {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " (" + v.Tag.Get("def") + ")."
}

// processEnv is this process's surroundings.
func processEnv() Env {
	return Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(),
		Terminal: isTerminal(os.Stdout), Size: terminalSize(os.Stdout), ReadPassword: passwordReader(os.Stdin, os.Stderr),
	}
}
