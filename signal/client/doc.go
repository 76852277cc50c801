// Package client is a client of callbox.v1 for Go programs: bots, gateways, recorders, load generators and tests. It is the
// reference for Go as static/callbox.js is for browsers; docs/protocol.md specifies what goes over the wire and
// docs/go-client.md shows how to use it. It carries signals and presence and hands over ICE servers; the media connections
// themselves are the program's, with whatever WebRTC library it uses.
//
// Dial begins a session. It outlives its connections: when one breaks, the client comes back with backoff, resumes, and what
// was sent meanwhile follows, each message once. When the server has lost the session the client begins another one and joins
// its rooms again; Connected and Joined say so.
//
// What the server says comes as events, in order, through Next. Answers to requests (Join, Call, ICEServers and so on) are
// those methods' results. A message counts as handled, and is acknowledged to the server, when Next returns it or
// when the method that asked returns.
//
// A Client has two goroutines while it is connected: one that writes, connects and waits (started by Dial), and one that reads
// (started and waited for by the first). Close waits for both.
package client
