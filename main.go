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
	// The first signal ends the context, and with it the server in good order; the second ends the process at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		<-signals
		os.Exit(1)
	}()
	status := cli.Main(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
