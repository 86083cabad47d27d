"""The pack store: files that all converters share, their locks, and how they are looked after."""
