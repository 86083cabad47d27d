"""The inside of an image, put together once on a node for all ranks of a job."""
