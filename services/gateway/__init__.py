"""The gateway: REST API, dashboard, and the only reader and writer of the catalog."""
