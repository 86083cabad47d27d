"""Jobs and the nodes that they run on: announced, told, answered, shown, ended."""
