// Package udp moves datagrams between sockets and memory in batches.
//
// It knows addresses, buffers and system calls, and nothing of STUN or TURN. A Conn is one bound socket with one reader; a
// Batch is what one read brought; an Outbox gathers what leaves and sends it, run by run, when it is flushed. The rule of its
// users is: flush before you read again, for the next read may block and reuses the memory the outbox points into.
package udp
