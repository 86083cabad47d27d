"""`python -m bench.million`: what an image of a million files costs, step by step.

Layers of small files are made up first. Then each step runs in a process of its own, so that its
peak of memory is its own: packing, planning, weaving, verifying; and last the kernel mounts the
image, and every file is counted and every size added up. Only the last step needs root.
"""

import argparse
import io
import os
import random
import shutil
import string
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isal import igzip

from bench.steps import in_own_process
from services.converter.packing import Compressors, LayerDigests, pack_layer
from shared.image.codecs import block_codec
from shared.image.making.verify import verify_image
from shared.image.making.weave import weave
from shared.image.packs.pack import read_footer
from shared.image.planning.plan import plan_image, read_indexes
from shared.image.recipe import ImageConfig, PackKey, PackOptions, Recipe, SourceDigests
from shared.store.store import PackStore

FILES_PER_DIRECTORY: Final = 100
LEAST_BYTES: Final = 100
MOST_BYTES: Final = 1900
TEXT_WORDS: Final = 200_000
OPTIONS: Final = PackOptions()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the steps find what the steps before them left."""

    work: Path
    layers: int
    files: int

    @property
    def store(self) -> PackStore:
        return PackStore(self.work / "store")

    @property
    def keys(self) -> Path:
        return self.work / "keys"

    @property
    def recipe(self) -> Path:
        return self.work / "recipe.json"

    @property
    def image(self) -> Path:
        return self.work / "image.squashfs"

    def layer(self, number: int) -> Path:
        return self.work / f"layer{number}.tar.gz"

    def read_keys(self) -> list[PackKey]:
        return self.keys.read_text().split()

    def read_recipe(self) -> Recipe:
        return Recipe.model_validate_json(self.recipe.read_bytes())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.million",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=1_000_000, help="how many (default: 1000000)")
    parser.add_argument("--layers", type=int, default=4, help="in how many layers (default: 4)")
    parser.add_argument(
        "--work", type=Path, default=Path(".bench/million"), help="default: .bench/million; removed"
    )
    arguments = parser.parse_args()
    if arguments.layers < 1 or arguments.files < arguments.layers:
        parser.error("there is at least one layer, and one file in each")
    place = Place(arguments.work.resolve(), arguments.layers, arguments.files)
    shutil.rmtree(place.work, ignore_errors=True)
    place.work.mkdir(parents=True)
    steps: list[Callable[[Place], str]] = [_make, _pack, _plan, _weave, _verify]
    if os.geteuid() == 0:
        steps.append(_mount)
    else:
        print("Not mounted: that needs root.")
    try:
        print(f"| {arguments.files:,} files | wall s | CPU s | peak MB | |\n|---|---|---|---|---|")
        for step in steps:
            cost = in_own_process(step, place)
            name = step.__name__.removeprefix("_")
            print(
                f"| {name} | {cost.wall:.2f} | {cost.cpu:.2f} | {cost.memory / 1e6:,.0f} "
                f"| {cost.made} |",
                flush=True,
            )
    finally:
        shutil.rmtree(place.work, ignore_errors=True)
    return 0


def _make(place: Place) -> str:
    """Text that compresses to less than half, as code does; no two files equal."""
    dice = random.Random(1)
    words = [
        "".join(dice.choices(string.ascii_lowercase, k=dice.randint(2, 9))) for _ in range(999)
    ]
    pattern = " ".join(dice.choices(words, k=TEXT_WORDS)).encode()
    for number in range(place.layers):
        first = place.files * number // place.layers
        last = place.files * (number + 1) // place.layers
        with igzip.open(  # type: ignore[no-untyped-call]
            place.layer(number), "wb", compresslevel=1
        ) as out:
            for file in range(first, last):
                if (file - first) % FILES_PER_DIRECTORY == 0:
                    out.write(_header(_directory(file, number), tarfile.DIRTYPE, 0))
                body = _body(file, pattern)
                name = f"{_directory(file, number)}/file{file:07}.txt"
                out.write(_header(name, tarfile.REGTYPE, len(body)))
                out.write(body + bytes(-len(body) % tarfile.BLOCKSIZE))
            out.write(bytes(2 * tarfile.BLOCKSIZE))
    sizes = [place.layer(number).stat().st_size for number in range(place.layers)]
    return f"{place.layers} layers, {sum(sizes) / 1e6:,.0f} MB gzip"


def _directory(file: int, layer: int) -> str:
    group = file // FILES_PER_DIRECTORY
    return f"data/layer{layer}/{group // 100:03}/{group % 100:02}"


def _size(file: int) -> int:
    return LEAST_BYTES + file * 7919 % (MOST_BYTES - LEAST_BYTES)


def _body(file: int, pattern: bytes) -> bytes:
    size, start = _size(file), file * 3571 % (len(pattern) - MOST_BYTES)
    return (b"%d\n" % file + pattern[start : start + size])[:size]


def _header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, size, 1_700_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _pack(place: Place) -> str:
    keys = []
    data = index = 0
    place.store.root.mkdir(exist_ok=True)
    with Compressors() as compressors:
        for number in range(place.layers):
            fresh = place.store.root / "fresh.pack"
            summary = pack_layer(
                io.BufferedReader(place.layer(number).open("rb", buffering=0)),
                expected=LayerDigests(),
                options=OPTIONS,
                out_path=fresh,
                compressors=compressors,
                on_progress=lambda _: None,
                cancelled=threading.Event(),
            )
            path = place.store.pack_path(summary.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(path)
            keys.append(summary.key)
            data += summary.data_length
            index += read_footer(path).index_length
    place.keys.write_text("\n".join(keys))
    return f"{data / 1e6:,.0f} MB of data, {index / 1e6:,.1f} MB of indexes"


def _plan(place: Place) -> str:
    keys, store, cancelled = place.read_keys(), place.store, threading.Event()
    indexes = read_indexes({key: store.pack_path(key) for key in keys}, cancelled=cancelled)
    digest = "sha256:" + "0" * 64
    recipe, tables = plan_image(
        [(key, indexes[key]) for key in keys],
        options=OPTIONS,
        max_dead_share=1.0,
        config=ImageConfig(),
        source=SourceDigests(
            reference=digest, manifest=digest, config=digest, layers=(digest,) * len(keys)
        ),
        codec=block_codec(OPTIONS.compression, OPTIONS.level),
        open_pack=store.open_pack,
        cancelled=cancelled,
    )
    store.put_tables(tables)
    place.recipe.write_text(recipe.model_dump_json())
    return f"{recipe.inodes:,} inodes, {len(tables) / 1e6:,.1f} MB of tables"


def _weave(place: Place) -> str:
    recipe, cancelled = place.read_recipe(), threading.Event()
    weave(recipe, place.store, place.image, on_progress=lambda _: None, cancelled=cancelled)
    with place.image.open("rb") as file:
        os.fsync(file.fileno())
    return f"{place.image.stat().st_size / 1e6:,.0f} MB, synced"


def _verify(place: Place) -> str:
    verify_image(place.image, place.read_recipe())
    return "every byte is what the recipe says"


def _mount(place: Place) -> str:
    point = place.work / "mount"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop,ro", place.image, point], check=True)  # noqa: S607
    try:
        found = [
            Path(folder, name).lstat().st_size
            for folder, _, names in os.walk(point)
            for name in names
        ]
    finally:
        subprocess.run(["umount", point], check=True)  # noqa: S607
    wanted = sum(_size(file) for file in range(place.files))
    if len(found) != place.files or sum(found) != wanted:
        raise RuntimeError(f"the mount shows {len(found)} files of {sum(found)} bytes")
    return f"{len(found):,} files of {sum(found) / 1e6:,.0f} MB in the kernel's mount"


if __name__ == "__main__":
    sys.exit(main())
