// Package relay is a STUN and TURN server (RFC 8489, RFC 8656) over UDP, TCP and TLS, for IPv4 and IPv6.
//
// Three layers. The gate reads every message from a client, answers what it can refuse by itself and authenticates the rest.
// The engine is pion/turn: it holds allocations, permissions and channels with their timers, and sees only well-formed,
// authenticated requests that the gate wrote anew; its answers are written anew on their way out. The plane moves the data of
// allocations, by tables that mirror what the engine has confirmed, and delivers between two allocations of one server
// without visiting the network. On Linux it is a shard for each processor: one goroutine around epoll that reads, handles and sends in
// batches, TCP and TLS included; elsewhere each socket has a goroutine.
//
// The package knows nothing of users or their passwords: Config.Keys is asked for keys. It accepts no TCP connections by
// itself either; whoever owns the listener hands them over with Server.ServeStream.
package relay
