"""Where the bytes are: storage, what images have in common, and the table of images."""
