"""Real servers on loopback addresses, from wheels: what tests and the sandbox start."""
