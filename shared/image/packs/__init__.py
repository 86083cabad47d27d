"""The pack: one layer, converted once, in a file of its own."""
