"""An image as an OCI layout of one layer, for `dray export`."""
