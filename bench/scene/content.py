"""What an image of the scene is made of, by its name alone: layers that share, and its recipe."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final

from bench.scene.cast import APPLICATIONS, FAMILIES, REGISTRY
from shared.image.recipe import (
    ImageConfig,
    ImageLayer,
    Recipe,
    Segment,
    SourceDigests,
    Tables,
)

MIB: Final = 1 << 20
_TABLES: Final = 6 * MIB
_START: Final = 4096


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: what the registry sends, and what it becomes."""

    digest: str
    blob: int
    pack: int
    live: int
    of_base: bool


@dataclass(frozen=True, slots=True)
class Content:
    """One image, as a registry and a converter would have it."""

    reference: str
    layers: tuple[Layer, ...]

    @property
    def blobs(self) -> int:
        return sum(layer.blob for layer in self.layers)

    def recipe(self) -> Recipe:
        offset, segments = _START, []
        for layer in self.layers:
            key = sha(f"pack {layer.digest}")
            segments.append(
                Segment(pack=key, offset=offset, length=layer.pack, sha256=sha(f"bytes {key}"))
            )
            offset += layer.pack
        return Recipe(
            image_id=sha(f"image {self.reference}"),
            size=offset + _TABLES,
            inodes=20_000 + offset // 50_000,
            compression="zstd",
            block_size=131072,
            superblock="00" * 96,
            segments=tuple(segments),
            tables=Tables(offset=offset, length=_TABLES, sha256=sha(f"tables {self.reference}")),
            config=ImageConfig(
                env=("PATH=/opt/app/bin:/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"),
                cmd=("/bin/bash",),
                workdir="/srv/app",
                labels={
                    "org.opencontainers.image.title": self.reference.rpartition("/")[2],
                    "org.opencontainers.image.vendor": "<em>Example</em> & Sons",
                },
            ),
            source=SourceDigests(
                reference=digest(f"reference {self.reference}"),
                manifest=digest(f"manifest {self.reference}"),
                config=digest(f"config {self.reference}"),
                layers=tuple(layer.digest for layer in self.layers),
            ),
            layers=tuple(
                ImageLayer(
                    digest=layer.digest,
                    pack=sha(f"pack {layer.digest}"),
                    length=layer.pack,
                    live=layer.live,
                )
                for layer in self.layers
            ),
        )


def references(count: int) -> list[str]:
    """So many names; the applications take turns, each with ever more versions."""
    return [
        f"{REGISTRY}/{APPLICATIONS[number % len(APPLICATIONS)][0]}:{_version(number)}"
        for number in range(count)
    ]


@lru_cache(2048)
def content(reference: str) -> Content:
    name = reference.removeprefix(f"{REGISTRY}/").rpartition(":")[0]
    family = dict(APPLICATIONS).get(name, "base/ubuntu")
    sizes, base = FAMILIES[family], list[Layer]()
    for count in range(1, len(sizes) + 1):
        base.append(_layer(f"base {sizes[:count]}", sizes[count - 1], of_base=True))
    own = Random(f"layers of {reference}")
    # Versions of an application differ in their last layers only.
    common = _layer(f"common {name}", Random(name).randint(600, 4000), of_base=False)
    latest = [
        _layer(f"own {reference} {number}", own.choice((40, 180, 900, 2200)), of_base=False)
        for number in range(own.randint(1, 3))
    ]
    return Content(reference, (*base, common, *latest))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest(text: str) -> str:
    return f"sha256:{sha(text)}"


def _layer(seed: str, mib: int, *, of_base: bool) -> Layer:
    rng = Random(seed)
    pack = int(mib * MIB * rng.uniform(0.95, 1.05))
    live = int(pack * rng.choice((1.0, 1.0, 1.0, 0.98, 0.9)))
    return Layer(digest(seed), int(pack * rng.uniform(0.9, 1.1)), pack, live, of_base)


def _version(number: int) -> str:
    turn = number // len(APPLICATIONS)
    return f"{2020 + turn // 6 % 7}.{turn % 6 + 1}" + ("" if turn < 42 else f"-{turn // 42}")
