//go:build !linux

package testkit

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"testing"
)

// Namespace is a host of its own on this machine; only Linux has them.
type Namespace struct{ Name string }

// NewNamespace skips the test: this system has no network namespaces.
func NewNamespace(t testing.TB, _ string) *Namespace {
	t.Helper()
	t.Skip("network namespaces are a feature of Linux")
	return nil
}

// Command is exec.Command inside the namespace.
func (ns *Namespace) Command(name string, arguments ...string) *exec.Cmd {
	return exec.Command(name, arguments...)
}

// Dial connects from inside the namespace.
func (ns *Namespace) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func endWithParent(*exec.Cmd) {}
