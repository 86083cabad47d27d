"""An image whose program is MPI's: ranks find each other, and add up their numbers."""

import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.c_programs import need_compiler
from tests.support.images import BuiltImage, Directory, Entry, File, build_image, layer_of
from tests.support.squashfs import libraries_of

# MPICH's ABI, which has not changed for ten years: no headers are needed, nor its compiler.
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WORLD = 0x44000000, INT = 0x4c000405, SUM = 0x58000003 };

int MPI_Init(int *, char ***);
int MPI_Comm_rank(int, int *);
int MPI_Comm_size(int, int *);
int MPI_Allreduce(const void *, void *, int, int, int, int);
int MPI_Finalize(void);

int main(void)
{
    const char *node = getenv("SLURMD_NODENAME");
    int rank = -1, size = -1, sum = -1;

    if (MPI_Init(NULL, NULL) || MPI_Comm_rank(WORLD, &rank) || MPI_Comm_size(WORLD, &size) ||
        MPI_Allreduce(&rank, &sum, 1, INT, SUM, WORLD))
        return 1;
    printf("%d of %d on %s: %d%s\n", rank, size, node ? node : "?", sum,
           access("/etc/mpi-image", F_OK) ? " outside" : "");
    fflush(stdout);
    return MPI_Finalize();
}
"""
PROGRAM_PATH = "/bin/ranks"


def mpi_image() -> BuiltImage:
    """With Debian's MPICH, as a user's image would have it."""
    need_compiler()
    with tempfile.TemporaryDirectory() as place:
        source, made = Path(place) / "ranks.c", Path(place) / "ranks"
        source.write_text(PROGRAM)
        words = ["gcc", "-o", str(made), str(source), "-l:libmpich.so.12"]
        if subprocess.run(words, check=False, capture_output=True).returncode:
            pytest.skip("needs a C compiler and MPICH: install Debian's gcc and libmpich12")
        entries: dict[str, Entry] = {
            PROGRAM_PATH[1:]: File(made.read_bytes(), mode=0o755),
            "etc/mpi-image": b"",
        }
        for library in libraries_of(made):
            entries[str(library)[1:]] = File(library.read_bytes(), mode=0o755)
    entries |= {name: Directory(0o755) for name in ("proc", "sys", "dev", "tmp")}
    return build_image([layer_of(entries)])
