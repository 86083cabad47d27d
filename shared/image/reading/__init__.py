"""Squashfs images of any tool, read without a mount; nothing that they say is believed."""
