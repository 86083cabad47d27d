"""Where images come from: registries, and archives or layouts in files.

`interface` says what a source is; `origin` reads what a user typed, `open` finds the source for it.
In files nothing is believed either: names never lead outside, documents are bounded, and every
digest is checked as if it came from a registry.
"""
