package nat

import (
	"errors"
	"fmt"

	"callbox/internal/router"
)

func isConflict(err error) bool { return errors.Is(err, router.ErrConflict) }

// fail notes the first port that is not forwarded, and what helps.
func (r *Router) fail(p router.Port, err error) {
	if r.Fault != "" {
		return
	}
	remedy := "forward it by hand in the router's settings"
	switch {
	case isConflict(err):
		r.Fault = FaultConflict
		remedy = "free it in the router's settings, or choose another port with --listen"
	case errors.Is(err, router.ErrRefused):
		r.Fault = FaultRefused
		remedy = "allow this device to open ports in the router's settings (UPnP), or forward " + p.String() + " by hand"
		if p.Number < 1024 {
			remedy = "many routers forward no port below 1024 by themselves: forward " + p.String() + " by hand in the router's settings"
		}
	case errors.Is(err, router.ErrFull):
		r.Fault = FaultFull
		remedy = "remove forwardings that are no longer used from the router's settings"
	default:
		r.Fault = FaultOther
	}
	r.Err = fmt.Sprintf("%v; %s", err, remedy)
}
