package app

// Kill stops answering at once, as a machine does that loses its power: listeners and relays are gone and nobody is told.
// Connections that were accepted are Options.Accepted's to cut, the context of Run is to end afterwards, and it is the caller who
// keeps what Run then says from the other nodes. It is for tests of what others do about such a loss.
func (a *App) Kill() error {
	a.port.close()
	for _, p := range a.extra {
		p.close()
	}
	return a.relay.Close()
}
