"""The tables of a squashfs 4.0 image, as they are written."""
