"""From a recipe to a flat image: copying and checking, without a codec."""
