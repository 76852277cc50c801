// Package app puts callbox together: it opens the data directory, the bus, the one port and the relay, answers the HTTP
// routes, and starts and stops everything in order. What the parts do is in their own packages; what they need to know of
// each other, they are handed here as functions.
package app
