"""The four services. They never import each other; each imports only `shared`."""
