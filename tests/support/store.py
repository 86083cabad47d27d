"""Small but true packs, and stores whose files can be made old."""

import hashlib
import os
from pathlib import Path

from shared.files import publishing
from shared.image.packs.index import PackIndex
from shared.image.packs.pack import write_index
from shared.image.recipe import ImageConfig, ImageLayer, PackKey, Recipe, SourceDigests, Tables
from shared.store.store import PackStore

DAY = 86400.0


def key_of(name: str) -> PackKey:
    return hashlib.sha256(name.encode()).hexdigest()


def write_pack(path: Path, key: PackKey, data: bytes = b"data" * 100) -> None:
    """A pack whose data are no blocks, but whose digests are right."""
    index = PackIndex(compression="zstd", block_size=131072)
    index.data_length = len(data)
    index.data_sha256 = hashlib.sha256(data).hexdigest()
    with publishing(path) as file:
        file.write(data)
        write_index(file, index, key)


def put_pack(store: PackStore, name: str, data: bytes = b"data" * 100) -> PackKey:
    key = key_of(name)
    write_pack(store.pack_path(key), key, data)
    return key


def recipe_of(image: str, packs: list[PackKey], tables: bytes) -> Recipe:
    """A recipe that holds these, of an image without data."""
    digest = f"sha256:{key_of(image)}"
    return Recipe(
        image_id=key_of(image),
        size=4096 + len(tables),
        inodes=1,
        compression="zstd",
        block_size=131072,
        superblock="00" * 96,
        segments=(),
        tables=Tables(offset=4096, length=len(tables), sha256=hashlib.sha256(tables).hexdigest()),
        config=ImageConfig(),
        source=SourceDigests(
            reference=digest, manifest=digest, config=digest, layers=(digest,) * len(packs)
        ),
        layers=tuple(ImageLayer(digest=digest, pack=key, length=0, live=0) for key in packs),
    )


def remember(store: PackStore, image: str, packs: list[PackKey]) -> Recipe:
    """As a converter does it: tables, then the recipe."""
    tables = f"tables of {image}".encode()
    store.put_tables(tables)
    recipe = recipe_of(image, packs, tables)
    store.remember(recipe)
    return recipe


def grow_older(root: Path, seconds: float) -> None:
    """As if that much time had passed for all files below."""
    for path in root.rglob("*"):
        if path.is_file():
            state = path.stat()
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns - int(seconds * 1e9)))
