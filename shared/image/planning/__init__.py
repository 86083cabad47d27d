"""From packs to a recipe: where everything goes, and what is left out."""
