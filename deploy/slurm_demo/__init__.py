"""`make slurm-demo`: a batch job over three nodes of a real Slurm, inside an image."""
