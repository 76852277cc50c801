//go:build !linux && !windows && !darwin && !freebsd && !netbsd && !openbsd && !dragonfly

package router

import (
	"errors"
	"net/netip"
)

func defaultGateway() (netip.Addr, error) { return netip.Addr{}, errors.ErrUnsupported }
