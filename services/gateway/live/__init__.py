"""What changes, told to whoever follows it: one stream for a page, and grids of very many nodes."""
