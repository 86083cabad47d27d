"""What was: figures of each minute, for charts of the last hours."""
