"""Usage: who looked up, pulled and ran which image, in which hour."""
