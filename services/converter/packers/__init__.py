"""Layers packed in processes of their own: forked by a nursery, fed through pipes."""
