"""`shifter`, for users and scripts that know it from Shifter: what `dray run` does, in its words.

Standard library only: each rank of a job starts by it.
"""
