"""The sample images: which layers they have, and what they weigh.

`sci`   8 layers, about 500 MB gzip: a Debian root, an interpreter, compilers with MPI, and the
        Python packages of a scientist, bytecode included; then a user's application of 2 MB.
        `v2` differs from `v1` by that last layer alone.
`many`  4 layers of small files: JavaScript modules, C++ headers, Python collections.
`tiny`  3 layers of this Python's own library: for trying the bench out without a network.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.convert.content import (
    Debian,
    Entry,
    Wheels,
    application,
    copies,
    debian_entries,
    standard_library,
    wheel_entries,
)

APPLICATION_BYTES: Final = 2_000_000

_BASE: Final = (
    *("apt", "base-files", "base-passwd", "bash", "coreutils", "dash", "dpkg", "findutils"),
    *("grep", "gzip", "login", "passwd", "perl-base", "sed", "tar", "util-linux"),
)
_RUNTIME: Final = ("python3", "openmpi-bin", "libgfortran5", "procps", "less", "ca-certificates")
_COMPILERS: Final = ("g++", "gfortran", "make", "libopenmpi-dev", "pkg-config", "git", "cmake")
_NODE: Final = ("npm", "webpack", "eslint", "node-typescript", "gulp", "yarnpkg")
_HEADERS: Final = ("libboost-dev", "libeigen3-dev")

_WHEELS: Final = {
    "numeric": ("numpy==1.26.4", "scipy==1.11.4"),
    "tables": (
        *("pandas==2.1.4", "matplotlib==3.8.4", "h5py==3.11.0", "netCDF4==1.6.5"),
        *("pillow==10.2.0", "fonttools==4.47.0", "pytz==2023.3", "babel==2.14.0"),
    ),
    "science": (
        *("scikit-learn==1.3.2", "sympy==1.12", "networkx==3.2.1", "dask==2023.12.1"),
        *("xarray==2023.12.0", "statsmodels==0.14.1", "ipython==8.20.0", "numba==0.58.1"),
        *("llvmlite==0.41.1", "bokeh==3.3.2", "jedi==0.19.1", "pygments==2.17.2", "sphinx==7.2.6"),
    ),
    "collections": (
        *("ansible==8.7.0", "django==4.2.16", "botocore==1.34.0", "plotly==5.18.0"),
        *("sympy==1.12", "networkx==3.2.1"),
    ),
}
# Nothing but their documentation is missed; a layer of whiteouts is part of an honest image.
_REMOVED: Final = ("usr/share/doc/gcc-12-base", "usr/share/doc/libc6-dev", "usr/share/doc/git")
_COPIED: Final = "usr/share/nodejs"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer by the way in which it is made; equal layers are made once."""

    name: str
    version: int = 1

    @property
    def key(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and, with another last layer, its update."""

    name: str
    layers: tuple[Layer, ...]
    updated: bool

    def versions(self) -> dict[str, tuple[Layer, ...]]:
        """Layers by tag."""
        last = self.layers[-1]
        found = {"v1": self.layers}
        if self.updated:
            found["v2"] = (*self.layers[:-1], Layer(last.name, last.version + 1))
        return found


def _sample(name: str, *layers: str, updated: bool = True) -> Sample:
    return Sample(name, tuple(Layer(layer) for layer in layers), updated)


SAMPLES: Final = {
    sample.name: sample
    for sample in (
        _sample(
            "sci",
            *("base", "runtime", "compilers", "numeric", "tables", "science", "cleaned", "app"),
        ),
        _sample("many", "base", "node", "collections", "copies", updated=False),
        _sample("tiny", "library-a", "library-b", "app"),
    )
}


def fetch_content(layers: set[str], work: Path) -> None:
    """Have all packages here that these layers are made of."""
    debian, wheels = _sources(work)
    names: list[str] = []
    if layers & {"base", "runtime", "compilers", "node", "copies"}:
        names += _BASE
    if layers & {"runtime", "compilers"}:
        names += [*_RUNTIME, *_COMPILERS]
    if layers & {"node", "copies"}:
        names += [*_NODE, *_HEADERS]
    if names:
        debian.fetch(names)
    for layer in sorted(layers & set(_WHEELS)):
        wheels.fetch(_WHEELS[layer])


def layer_entries(layer: Layer, work: Path) -> Iterator[Entry]:
    """What the layer holds; its content has been fetched."""
    debian, wheels = _sources(work)
    if layer.name in _WHEELS:
        compiled = layer.name != "collections"
        return wheel_entries(wheels.files(_WHEELS[layer.name]), compiled=compiled)
    made: dict[str, Callable[[], Iterator[Entry]]] = {
        "base": lambda: debian_entries(debian.closure(_BASE)),
        "runtime": lambda: _above(debian, _RUNTIME, _BASE),
        "compilers": lambda: _above(debian, _COMPILERS, (*_BASE, *_RUNTIME)),
        "node": lambda: _above(debian, (*_NODE, *_HEADERS), _BASE),
        "copies": lambda: _copies(debian),
        "cleaned": _cleaned,
        "library-a": lambda: standard_library("a", "m"),
        "library-b": lambda: standard_library("n", "z"),
        "app": lambda: application(layer.version, APPLICATION_BYTES),
    }
    return made[layer.name]()


def _sources(work: Path) -> tuple[Debian, Wheels]:
    return Debian(work / "packages" / "debian"), Wheels(work / "packages" / "wheels")


def _above(debian: Debian, names: tuple[str, ...], below: tuple[str, ...]) -> Iterator[Entry]:
    """What installing more packages adds."""
    present = set(debian.closure(below))
    return debian_entries(
        [path for path in debian.closure((*below, *names)) if path not in present]
    )


def _copies(debian: Debian) -> Iterator[Entry]:
    for number in range(2):
        entries = _above(debian, _NODE, _BASE)
        yield from copies(entries, _COPIED, f"srv/app{number}/node_modules", f"app{number}", 25_000)


def _cleaned() -> Iterator[Entry]:
    for path in _REMOVED:
        folder, _, name = path.rpartition("/")
        yield Entry(f"{folder}/.wh.{name}")
    start = b"#!/bin/sh\nexec python3 /opt/app/src/module0.py\n"
    yield Entry("opt/app/run.sh", mode=0o755, data=start)
