"""Copies of images on the node's own disk or in its memory: made once, checked, and kept."""
