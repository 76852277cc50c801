package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"callbox/internal/config"
	"callbox/internal/control"
)

// healthTimeout bounds the question and its answer.
const healthTimeout = 5 * time.Second

// healthcheckCmd asks a running server whether it is well.
type healthcheckCmd struct {
	URL  string `name:"url" placeholder:"URL" help:"Server to ask, as https://call.example (the one of the data directory, else the one on the listening address)."`
	JSON bool   `name:"json" help:"As one JSON object."`
}

// health is the answer.
type health struct {
	Healthy bool   `json:"healthy"`
	Asked   string `json:"asked"` // URL or socket
	Reason  string `json:"reason,omitempty"`
}

// errUnhealthy makes the exit status 1.
var errUnhealthy = errors.New("not healthy")

// Run asks and prints the answer.
func (cmd *healthcheckCmd) Run(ctx context.Context, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	asked, err := cmd.ask(ctx, c)
	var faults config.Faults
	if errors.As(err, &faults) {
		return err
	}
	answer := health{Healthy: err == nil, Asked: asked}
	if err != nil {
		answer.Reason = err.Error()
	}
	if cmd.JSON {
		if printErr := c.printJSON(answer); printErr != nil {
			return printErr
		}
	} else if answer.Healthy {
		if err := c.printf("healthy: %s\n", asked); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errUnhealthy, asked, err)
	}
	return nil
}

func (cmd *healthcheckCmd) ask(ctx context.Context, c *call) (asked string, err error) {
	if cmd.URL != "" {
		u, err := url.Parse(cmd.URL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return cmd.URL, usagef("--url must be an http or https URL")
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = "/healthz"
		}
		return u.String(), askHTTP(ctx, u.String())
	}
	cfg, _, err := c.config()
	if err != nil {
		return "", err
	}
	_, err = control.NewClient(cfg.Data).Health(ctx)
	if !errors.Is(err, control.ErrNoServer) && !errors.Is(err, control.ErrRights) {
		return cfg.Data, err
	}
	where := "http://" + reachable(cfg.Listen) + "/healthz"
	return where, askHTTP(ctx, where)
}

// reachable is the address at which this machine reaches a listener.
func reachable(listen netip.AddrPort) string {
	host := listen.Addr().String()
	switch listen.Addr() {
	case netip.IPv6Unspecified(), netip.IPv4Unspecified():
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(int(listen.Port())))
}

func askHTTP(ctx context.Context, where string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return errors.Unwrap(err) // without the URL, which is named already
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return nil
}
