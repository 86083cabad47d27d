"""Small images whose program tells, from inside, which image and which node it runs in."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.support.images import BuiltImage, Directory, Entry, File, build_image, layer_of

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **words)
{
    char name[256] = "";
    FILE *file = fopen("/etc/image-name", "r");
    const char *node = getenv("DRAY_TEST_NODE");

    if (!file || !fgets(name, sizeof name, file))
        return 1;
    printf("in %s on %s as %d\n", name, node ? node : "?", (int)getuid());
    fflush(stdout);
    if (count > 1)
        sleep(atoi(words[1]));
    return access("/etc/image-name", R_OK) != 0;
}
"""
WHERE = "/bin/where"
"""In the image; with an argument it sleeps for so many seconds before it ends."""


@cache
def _program() -> bytes:
    if shutil.which("gcc") is None or not any(Path("/usr/lib").rglob("libc.a")):
        pytest.skip("needs a C compiler and a static libc: install Debian's gcc and libc6-dev")
    with tempfile.TemporaryDirectory() as place:
        source, made = Path(place) / "where.c", Path(place) / "where"
        source.write_text(PROGRAM)
        subprocess.run(["gcc", "-static", "-O1", "-o", made, source], check=True)
        return made.read_bytes()


def telling_image(name: str, more: int = 0) -> BuiltImage:
    """An image that tells its name; `more` bytes that cannot be compressed make it slow to pull."""
    entries: dict[str, Entry] = {
        "bin/where": File(_program(), mode=0o755),
        "etc/image-name": name.encode(),
    }
    entries |= {place: Directory(0o755) for place in ("proc", "sys", "dev", "tmp")}
    layers = [layer_of(entries)]
    if more:
        with Path("/dev/urandom").open("rb") as random:
            layers.append(layer_of({"data": random.read(more)}, "none"))
    return build_image(layers)
