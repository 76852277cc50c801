package cli

import (
	"errors"
	"strings"

	"callbox/internal/app"
	"callbox/internal/config"
)

// serveFaults finds all faults of a command line that runs the server, where
// parsing it has stopped at the first: who mistyped one flag learns of the
// other faults in the same go. It is nil for other commands, and where the
// fault is none of a setting.
func serveFaults(args, environ []string) error {
	flags := map[string][]string{}
	for i := 0; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "--")
		switch {
		case isFlag && name != "":
		case i == 0 && args[i] == "serve":
			continue
		default:
			return nil
		}
		name, value, joined := strings.Cut(name, "=")
		if !joined && i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			i++
			value = args[i]
		}
		flags[name] = append(flags[name], value)
	}
	_, _, err := config.Load(config.Sources{Flags: flags, Environ: environ, Check: app.CheckFiles})
	var faults config.Faults
	if errors.As(err, &faults) {
		return faults
	}
	return nil
}
