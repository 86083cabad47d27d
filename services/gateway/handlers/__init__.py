"""HTTP handlers: they read a request, call the logic and shape the answer; nothing else."""
