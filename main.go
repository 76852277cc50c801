// Command callbox is a WebRTC signaling server, TURN relay and call page in one.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"callbox/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the context and with it the server in good order, the second the process at once.
	ended := make(chan os.Signal, 2)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	go func() { <-ended; <-ended; os.Exit(1) }()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	status := cli.Main(ctx, os.Args[1:], hangup)
	stop()
	os.Exit(status)
}
