"""The catalog: what is true. One interface, SQLite for one machine and MongoDB for many."""
