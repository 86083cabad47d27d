"""Trees of files become layers: directories on disk, and squashfs images that others made.

A tree is *listed* once, into a spool file, in the order of its paths, and cut into *parts*. Each
part is *read* as a tar that only its content decides, and packed like any layer. What was listed of
a part is its *stamp*: an import that was killed, or comes again, reads only parts that are new.
Listing and reading are jobs that run with the rights of whoever imports.
"""
