"""Images: packs (one for each layer), recipes (one for each image), the flat squashfs of both."""
