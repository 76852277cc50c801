//go:build !linux

package doctor

// holdsItself is what a test sees of a port that it holds.
const holdsItself = "another program"

func readTable(string, uint16) {}
