"""What it costs each rank of a job to enter its image."""
