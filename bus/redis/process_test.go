package redis

const nodeProcessURL = "CALLBOX_TEST_NODE_URL"

func nodeProcess() {}
