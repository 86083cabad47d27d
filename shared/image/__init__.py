"""The image format: packs (one per layer), recipes (one per image), the flat squashfs of both."""
