"""The inside of an image: what is mounted where for a job, and how that is put together.

Standard library only: `dray run` starts by it.
"""
