"""Benchmarks: what Dray costs, side by side with what others cost, made again by one command."""
