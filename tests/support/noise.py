"""Bytes that no compressor makes smaller, and that are the same in every run."""

import random


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)
