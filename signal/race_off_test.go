//go:build !race

package signal

// raceEnabled: with the race detector pools lose some of what they are given.
const raceEnabled = false
