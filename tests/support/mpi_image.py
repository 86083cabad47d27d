"""Images whose program is MPI's: ranks find each other, add up their numbers, and pass on a ring.

They hold what Debian's MPICH and Open MPI are, with all plugins, as a user's image would.
"""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.support.c_programs import need_compiler
from tests.support.images import BuiltImage, Directory, Entry, File, build_image, layer_of

Family = Literal["mpich", "openmpi"]

PROGRAM_PATH = "/bin/ranks"
LIBRARIES: Final = {"mpich": "libmpich.so.12", "openmpi": "libmpi.so.40"}
_PACKAGES: Final = {"mpich": "libmpich12", "openmpi": "libopenmpi3"}
_PLUGINS: Final = {
    "mpich": ("ucx/*.so.0",),
    "openmpi": ("ucx/*.so.0", "openmpi/lib/openmpi3/*.so", "pmix2/lib/pmix/*.so"),
}
_HOME: Final = next(Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib"))

# Neither ABI has changed for ten years: no headers are needed, nor their compilers.
_PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef OPENMPI
typedef void *handle;
extern char ompi_mpi_comm_world[], ompi_mpi_int[], ompi_mpi_op_sum[];
#define WORLD ompi_mpi_comm_world
#define INT ompi_mpi_int
#define SUM ompi_mpi_op_sum
#define IGNORE ((void *)0)
#else
typedef int handle;
enum { WORLD = 0x44000000, INT = 0x4c000405, SUM = 0x58000003 };
#define IGNORE ((void *)1)
#endif

int MPI_Init(int *, char ***);
int MPI_Comm_rank(handle, int *);
int MPI_Comm_size(handle, int *);
int MPI_Allreduce(const void *, void *, int, handle, handle, handle);
int MPI_Send(const void *, int, handle, int, int, handle);
int MPI_Recv(void *, int, handle, int, int, handle, void *);
int MPI_Finalize(void);

/* Large, so that it goes from memory to memory where a transport can do that. */
enum { LENGTH = 1 << 16 };
static int token[LENGTH];

/* From rank to rank and back to the first; each adds 1 to each number. */
static int pass_on(int rank, int size)
{
    int after = (rank + 1) % size, before = (rank + size - 1) % size;

    if (rank && MPI_Recv(token, LENGTH, INT, before, 7, WORLD, IGNORE))
        return 1;
    for (int i = 0; i < LENGTH; i++)
        token[i] += rank ? 1 : i;
    if (MPI_Send(token, LENGTH, INT, after, 7, WORLD))
        return 1;
    return !rank && MPI_Recv(token, LENGTH, INT, before, 7, WORLD, IGNORE);
}

/* In which directories the libraries and plugins are that came to be loaded. */
static void tell_homes(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096], told[16][256] = {""};
    int count = 0;

    while (maps && fgets(line, sizeof line, maps)) {
        char *path = strchr(line, '/'), *name = path ? strrchr(path, '/') : NULL;
        int at = 0;

        if (!name || (strncmp(name, "/libmpi", 7) && strncmp(name, "/mca_", 5)))
            continue;
        *name = 0;
        while (at < count && strcmp(told[at], path))
            at++;
        if (at == count && count < 16) {
            snprintf(told[count++], sizeof *told, "%s", path);
            printf(" %s", path);
        }
    }
}

int main(void)
{
    const char *node = getenv("SLURMD_NODENAME");
    int rank = -1, size = -1, sum = -1, wrong = 0;

    if (MPI_Init(NULL, NULL) || MPI_Comm_rank(WORLD, &rank) || MPI_Comm_size(WORLD, &size) ||
        MPI_Allreduce(&rank, &sum, 1, INT, SUM, WORLD))
        return 1;
    if (size > 1 && pass_on(rank, size))
        return 1;
    for (int i = 0; size > 1 && !rank && i < LENGTH; i++)
        wrong += token[i] != i + size - 1;
    printf("%d of %d on %s: %d%s%s", rank, size, node ? node : "?", sum, wrong ? " wrong" : "",
           access("/etc/mpi-image", F_OK) ? " outside" : "");
    if (getenv("HOMES"))
        tell_homes();
    putchar('\n');
    fflush(stdout);
    return MPI_Finalize();
}
"""


@cache
def mpi_image(family: Family = "mpich") -> BuiltImage:
    """With a family's MPI where Debian has it."""
    need_compiler()
    with tempfile.TemporaryDirectory() as place:
        source, made = Path(place) / "ranks.c", Path(place) / "ranks"
        source.write_text(_PROGRAM)
        words: list[str | Path] = [
            "gcc",
            f"-D{family.upper()}",
            "-o",
            made,
            source,
            f"-l:{LIBRARIES[family]}",
        ]
        if subprocess.run(words, check=False, capture_output=True).returncode:
            pytest.skip(f"needs a C compiler and MPI: install Debian's gcc and {_PACKAGES[family]}")
        entries: dict[str, Entry] = {
            PROGRAM_PATH[1:]: File(made.read_bytes(), mode=0o755),
            "etc/mpi-image": b"",
        }
        for library in [*_plugins(family), *_needed(family)]:
            entries[str(library)[1:]] = File(library.read_bytes(), mode=0o755)
    entries |= {name: Directory(0o755) for name in ("proc", "sys", "dev", "tmp")}
    return build_image([layer_of(entries, "zstd")])


def site_mpi(family: Family, into: Path) -> Path:
    """A site's own: all that it needs but the C library, below `lib` of one directory."""
    libraries = into / "lib"
    libraries.mkdir(parents=True)
    for library in _needed(family):
        # The loader and what belongs to it are the image's.
        if not library.name.startswith(("ld-linux", "libc.", "libm.")):
            shutil.copy(library, libraries)
    for plugin in _plugins(family):
        # Debian's prefix is /usr, and what lies below it is looked for below the site's.
        place = into / plugin.relative_to("/usr").parent
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(plugin, place)
    if family == "mpich":
        # As it is called everywhere else.
        (libraries / LIBRARIES[family]).rename(libraries / "libmpi.so.12")
    return into


def _plugins(family: Family) -> list[Path]:
    return [path for pattern in _PLUGINS[family] for path in sorted(_HOME.glob(pattern))]


@cache
def _needed(family: Family) -> list[Path]:
    """What the loader takes for the MPI and its plugins; the loader, too."""
    programs = [_HOME / LIBRARIES[family], *_plugins(family)]
    listed = subprocess.run(["ldd", *programs], check=True, capture_output=True, text=True).stdout
    words = {word for word in listed.split() if word.startswith("/") and not word.endswith(":")}
    return [_HOME / LIBRARIES[family], *(Path(word) for word in sorted(words))]
