"""A root file system as a tar that nothing but its files decide."""
