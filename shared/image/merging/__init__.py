"""Layers become one tree of inodes: overlay semantics on numbers that point into packs."""
