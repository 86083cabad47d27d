"""The distributor: places images on each system's shared file system."""
