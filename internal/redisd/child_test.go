package redisd

// childEnv makes the test program a server, see child.
const childEnv = "PASTE_TEST_REDISD"

func child() int { return 0 }
