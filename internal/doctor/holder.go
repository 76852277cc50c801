package doctor

// Holder finds whose a port is, as "nginx (process 812)"; "" where that cannot be known. The network is tcp or udp.
func Holder(network string, port uint16) string { return holder(network, port) }
