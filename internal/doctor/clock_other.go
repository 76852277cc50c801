//go:build !linux

package doctor

// kernelSynced does not know elsewhere.
func kernelSynced() *bool { return nil }
