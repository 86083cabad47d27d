"""The wire of Shifter's image gateway, for its unmodified clients."""
