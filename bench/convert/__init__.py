"""From a registry to one squashfs: Dray, its peers, and the limit, in one run."""
