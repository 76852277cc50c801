package relay

// onLinux says that every address of 127.0.0.0/8 is the host's, and that answers leave from the address asked.
const onLinux = true
