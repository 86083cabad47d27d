"""REST v1: thin handlers, a class for each kind of thing."""
