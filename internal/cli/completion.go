package cli

import (
	"context"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
)

// completionCmd prints what makes a shell complete callbox's commands and flags.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says what to do with it.
func (*completionCmd) Help() string {
	return "Put this line into the shell's start file: source <(callbox completion bash), source <(callbox completion zsh), or callbox completion fish | source."
}

// Run prints the code. It names this very program, which the shell asks with the line typed so far.
func (cmd *completionCmd) Run(_ context.Context, c *call) error {
	return (&kongcompletion.Completion{Shell: cmd.Shell, Code: true}).Run(c.parsed)
}

// complete answers a shell that asks how a line may go on; false: it is no shell that asks. The line is in the process's
// environment, where the library looks for it.
func complete(parser *kong.Kong, environ []string) bool {
	for _, kv := range environ {
		if line, ok := strings.CutPrefix(kv, "COMP_LINE="); ok && line != "" && line == os.Getenv("COMP_LINE") {
			kongcompletion.Register(parser, kongcompletion.WithExitFunc(func(int) {}))
			return true
		}
	}
	return false
}
