"""Which C library and which MPI an image brings, and what of a module does not go with them."""

import os
import platform
import time
from pathlib import Path

import pytest

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside import abi
from services.node_agent.inside.abi import ImageAbi, look
from services.node_agent.inside.compatible import require_compatible
from services.node_agent.inside.module import Module
from tests.support.elves import glibc, ld_cache, library, mpich, open_mpi, put

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the libraries made here are for x86_64"
)
TRIPLET = "usr/lib/x86_64-linux-gnu"


def module(**fields: object) -> dict[str, Module]:
    return {"site": Module.model_validate(fields)}


def families(found: ImageAbi) -> list[tuple[str, int]]:
    return [(each.family, each.number) for each in found.mpi]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({f"{TRIPLET}/libmpich.so.12": mpich("libmpich.so.12")}, [("mpich", 12)]),
        ({"usr/lib64/libmpi.so.12": mpich()}, [("mpich", 12)]),
        ({"usr/lib64/mpich/lib/libmpi.so.12": mpich()}, [("mpich", 12)]),
        ({"usr/local/lib/libmpi.so.40": open_mpi()}, [("openmpi", 40)]),
        ({"usr/lib64/openmpi/lib/libmpi.so.20": open_mpi("libmpi.so.20")}, [("openmpi", 20)]),
        # Open MPI 1.10 has the name that MPICH's family has.
        ({"usr/lib/libmpi.so.12": open_mpi("libmpi.so.12")}, [("openmpi", 12)]),
        ({"usr/lib/libmpich.so.10": mpich("libmpich.so.10")}, [("mpich", 10)]),
        ({"usr/lib/libmpi.so.12": b"no library"}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_the_mpi_of_an_image(
    tmp_path: Path, files: dict[str, bytes], found: list[tuple[str, int]]
) -> None:
    assert families(look(put(tmp_path, files))) == found


def test_libraries_in_places_that_only_the_image_knows(tmp_path: Path) -> None:
    cache = ld_cache(("libmpi.so.40", "/opt/ompi/lib/libmpi.so.40"))
    put(tmp_path, {"etc/ld.so.cache": cache, "opt/ompi/lib/libmpi.so.40.30.4": open_mpi()})
    (tmp_path / "opt/ompi/lib/libmpi.so.40").symlink_to("libmpi.so.40.30.4")
    put(tmp_path, {"opt/mpich/lib/libmpi.so.12": mpich()})
    assert families(look(tmp_path)) == [("openmpi", 40)]
    env = ["LD_LIBRARY_PATH=/nowhere:/opt/mpich/lib", "PATH=/bin"]
    assert families(look(tmp_path, env)) == [("mpich", 12), ("openmpi", 40)]


def test_the_c_library_of_an_image(tmp_path: Path) -> None:
    assert look(tmp_path) == ImageAbi()
    assert look(tmp_path / "nothing") == ImageAbi()
    put(tmp_path, {"lib/ld-musl-x86_64.so.1": library("libc.musl"), "bin/busybox": library()})
    assert look(tmp_path) == ImageAbi("x86_64", "musl")
    put(tmp_path, {f"{TRIPLET}/libc.so.6": glibc(31)})
    assert look(tmp_path) == ImageAbi("x86_64", "glibc", (2, 31))


def test_nothing_leads_out_of_the_image(tmp_path: Path) -> None:
    put(tmp_path, {"outside/libmpi.so.12": mpich(), "outside/libc.so.6": glibc()})
    image = tmp_path / "image"
    (image / "usr").mkdir(parents=True)
    (image / "usr/lib").symlink_to(tmp_path / "outside")
    (image / "lib64").symlink_to("../../outside")
    (image / "lib").symlink_to("lib")
    (image / "etc").mkdir()
    os.mkfifo(image / "etc/ld.so.cache")  # it would be waited for, were it opened
    long = f"LD_LIBRARY_PATH={'/' + 'x' * 5000}:{tmp_path}/outside:/a\0b"
    assert look(image, [long]) == ImageAbi()


def test_an_image_in_which_looking_takes_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name is a chain of links, each as long as one can be."""
    monkeypatch.setattr(abi, "_SECONDS", 0.2)
    lib = tmp_path / "usr/lib"
    (lib / "d").mkdir(parents=True)
    for number in range(39):
        (lib / f"l{number}").symlink_to("d/../" * 800 + f"l{number + 1}")
    for name in ("libc.so.6", "libmpi.so.12", "libmpi.so.40", "libmpi.so.20", "libmpich.so.12"):
        (lib / name).symlink_to("l0")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "lib64").symlink_to("usr/lib")
    begun = time.monotonic()
    with pytest.raises(InsideRefusedError, match=r"not be looked at within 0\.2 s.*--module=none"):
        look(tmp_path)
    assert time.monotonic() - begun < 10


HERE = ImageAbi("x86_64", "glibc", (2, 36))


def brought(tmp_path: Path, content: bytes, name: str = "libmpi.so.12") -> dict[str, object]:
    put(tmp_path, {f"site/lib/{name}": content})
    return {"binds": [{"from": str(tmp_path / "site")}]}


def test_what_goes_with_each_other(tmp_path: Path) -> None:
    image = look(put(tmp_path / "image", {"usr/lib64/libmpich.so.12": mpich("libmpich.so.12")}))
    require_compatible(module(mpi="mpich"), image)
    require_compatible(module(mpi="mpich", **brought(tmp_path, mpich())), image)
    require_compatible(module(min_libc="2.36"), HERE)
    require_compatible(module(mpi="openmpi"), HERE)  # it may be where nobody looks
    require_compatible(module(), ImageAbi("aarch64", "musl"))


@pytest.mark.parametrize(
    ("image", "site", "says"),
    [
        (
            {"usr/lib/libmpi.so.40": open_mpi()},
            {"mpi": "mpich"},
            r"Open MPI 3, 4 or 5 \(libmpi\.so\.40\), and .* brings MPICH .* 3\.1 .*--module=none",
        ),
        (
            {"usr/lib/libmpi.so.12": mpich()},
            {"mpi": "openmpi"},
            r"has MPICH or one of its kin \(libmpi\.so\.12\), .* brings Open MPI: build",
        ),
        (
            {"usr/lib/libmpich.so.10": mpich("libmpich.so.10")},
            {"mpi": "mpich"},
            r"an MPICH of before 2014 \(libmpich\.so\.10\), whose programs cannot use",
        ),
        ({"lib/ld-musl-x86_64.so.1": library()}, {"mpi": "mpich"}, "musl, as in Alpine"),
        ({"lib/ld-musl-x86_64.so.1": library()}, {"min_libc": "2.17"}, "musl, as in Alpine"),
        (
            {"lib64/libc.so.6": glibc(17)},
            {"min_libc": "2.28"},
            r"glibc 2\.17, and what the module site brings needs 2\.28 or later: build the image",
        ),
        ({"bin/sh": library(machine=183)}, {"mpi": "mpich"}, "image is for aarch64, .* is x86_64"),
    ],
)  # fmt: skip
def test_what_does_not(
    tmp_path: Path, image: dict[str, bytes], site: dict[str, object], says: str
) -> None:
    with pytest.raises(InsideRefusedError, match=says):
        require_compatible(module(**site), look(put(tmp_path, image)))


def test_what_the_module_s_own_library_asks_for(tmp_path: Path) -> None:
    image = look(
        put(
            tmp_path / "image",
            {"lib64/libc.so.6": glibc(28), "usr/lib/libmpi.so.20": open_mpi("libmpi.so.20")},
        )
    )
    new = open_mpi("libmpi.so.40", asks=["GLIBC_2.34"])
    site = {"mpi": "openmpi", **brought(tmp_path, new, "libmpi.so.40")}
    with pytest.raises(InsideRefusedError, match=r"glibc 2\.28, .* needs 2\.34"):
        require_compatible(module(**site), image)
    site = {"mpi": "openmpi", **brought(tmp_path, open_mpi(), "libmpi.so.40")}
    with pytest.raises(InsideRefusedError, match=r"Open MPI 2 \(libmpi\.so\.20\), whose .*\.40"):
        require_compatible(module(**site), image)
