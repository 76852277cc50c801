// Package signal is where peers find each other: rooms, sessions over
// WebSocket, signals from peer to peer, presence, and calling a user by name.
// It runs on the contracts of package bus, so one node and many are the same
// code. The hub knows no wire protocol; each protocol has files of its own
// (callbox*.go for callbox.v1, specified in docs/protocol.md; peerjs.go,
// ywebrtc.go, ayame.go and matchbox.go for clients of other servers, which
// docs/clients.md tells how to point here).
//
// It does not know who may connect: the caller of Serve has decided that and
// hands over an Identity. It never looks into the payload of a signal.
//
// # Locks
//
// There are four kinds, all held for memory work only, never across I/O or a
// call of the bus:
//
//	Hub.mu      sessions, rooms and their members, who moved where
//	session.mu  one session's queue, numbers, calls; may be taken inside Hub.mu
//	conn.mu     one connection's writer state; a leaf, taken alone
//	roll.mu     who is in which room of the cluster, for Config.Watch; a leaf, held while Watch runs
//
// Of two sessions' locks never more than one is held.
//
// # Goroutines
//
// One for a connection, which reads (started by Serve). Writing happens in
// whichever goroutine queued a frame, as long as the socket takes it; a writer
// goroutine exists only while there is a backlog. One ticker a hub (started
// by New), and short ones for calls of the bus. Close waits for all of them.
package signal
