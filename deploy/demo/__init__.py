"""A demonstration on one machine: a sample image of its own files, and a registry for it."""
