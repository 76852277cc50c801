package signal

// RenewICE gives every client its ICE servers anew, in a message that nobody asked for: the addresses of this server have
// changed. Clients take them over and restart ICE where they use a relay. It does not wait.
func (h *Hub) RenewICE() {
	h.spawn(func() {
		for _, o := range h.offers() {
			ice, err := o.ask(o.room)
			if err != nil {
				h.log.Warn("no ICE servers", logUser, o.s.who.user, logError, err)
				continue
			}
			o.s.tell(&event{kind: evICE, room: o.room, ice: &ice})
			if h.ctx.Err() != nil {
				return
			}
		}
	})
}

// offer is a session that is to get ICE servers.
type offer struct {
	s    *session
	room string // it is in, or its token is for; "": none
	ask  func(room string) (ICE, error)
}

// offers lists the sessions that can be given servers.
func (h *Hub) offers() []offer {
	h.mu.RLock()
	defer h.mu.RUnlock()
	out := make([]offer, 0, len(h.sessions))
	for _, s := range h.sessions {
		o := offer{s: s}
		if n := len(s.rooms); n > 0 {
			o.room = s.rooms[n-1].name
		}
		id := s.identity()
		if o.ask = id.ICE; o.ask == nil || id.Room != "" && o.room == "" {
			continue // a token's holder asks when it has joined
		}
		out = append(out, o)
	}
	return out
}
