// Package udp moves datagrams between sockets and memory in batches.
//
// It knows addresses, buffers and system calls, and nothing of STUN or TURN. A Conn is one bound socket: with a reader of its own, who
// gets a Batch with each read, or on a Loop, which reads many and calls their handlers. An Outbox gathers what leaves and sends it,
// run by run, when it is flushed. The rule of its users is: flush before you read again, for the next read may block and reuses the
// memory the outbox points into. A Loop keeps to it by itself.
//
// A Loop reads TCP connections too: what comes in over them leaves as datagrams, and the other way round.
package udp
