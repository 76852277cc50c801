package app

import (
	"net/http"
	"net/netip"
	"time"
)

// allocation is one allocation as administrators see it.
type allocation struct {
	User      string           `json:"user"`    // opaque tag, the same for all sessions of a user
	Session   string           `json:"session"` // opaque tag
	Transport string           `json:"transport"`
	Client    netip.AddrPort   `json:"client"`
	Relayed   []netip.AddrPort `json:"relayed"`
	ToPeers   traffic          `json:"toPeers"`
	ToClient  traffic          `json:"toClient"`
	Created   time.Time        `json:"created"`
	Seconds   int              `json:"ageSeconds"`
}

// traffic is what was relayed one way; bytes are those of the payload.
type traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// getRelay lists the allocations of this node.
func (s *web) getRelay(w http.ResponseWriter, r *http.Request) {
	c, refusal := s.caller(r)
	if refusal != nil {
		writeError(w, refusal)
		return
	}
	if !c.Admin {
		writeError(w, &apiError{Status: http.StatusForbidden, Code: "not-allowed", Message: "this is for administrators"})
		return
	}
	now := s.now()
	list := []allocation{}
	for _, a := range s.relay.Allocations() {
		list = append(list, allocation{
			User: a.Owner.User, Session: a.Owner.Session, Transport: a.Transport.String(),
			Client: a.Client, Relayed: a.Relayed, ToPeers: traffic(a.ToPeers), ToClient: traffic(a.ToClient),
			Created: a.Created.UTC(), Seconds: int(now.Sub(a.Created) / time.Second),
		})
	}
	writeJSON(w, http.StatusOK, struct {
		Node        string       `json:"node"`
		Allocations []allocation `json:"allocations"`
	}{s.bus.Self().Name(), list})
}
