"""The converter: registry → layers → packs → recipe, without unpacking anything to disk."""
