"""Tars made of a few words, and the whole way from tars to an image in one call."""

import io
import tarfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.converter.packing import Compressors, LayerDigests, Limits, PackSummary, pack_layer
from services.converter.packing.stream import ByteSource
from shared.image.codecs import BlockCodec, block_codec
from shared.image.making.verify import verify_image
from shared.image.making.weave import weave
from shared.image.planning.plan import plan_image, read_indexes
from shared.image.reading.check import check
from shared.image.recipe import ImageConfig, PackOptions, Recipe, SourceDigests
from shared.store.store import PackStore

SOURCE = SourceDigests(
    reference="sha256:" + "1" * 64,
    manifest="sha256:" + "1" * 64,
    config="sha256:" + "2" * 64,
    layers=("sha256:" + "3" * 64,),
)


def source_of(layers: int) -> SourceDigests:
    """Where an image of that many layers is from."""
    return SOURCE.model_copy(update={"layers": SOURCE.layers * layers})


# Everything that a layer can say gets through.
KEEP_ALL = PackOptions(
    block_size=4096,
    keep_owners=True,
    keep_setuid=True,
    keep_devices=True,
    xattrs=("user.", "trusted.", "security.", "security.capability"),
)


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_600_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def directory(name: str, **fields: object) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str, **fields: object) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target, **fields)


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, linkname=target)


Part = tarfile.TarInfo | tuple[str | tarfile.TarInfo, bytes]


def tar_of(*parts: Part, dialect: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of members; a name or a member with its content is a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=dialect, errors="surrogateescape") as tar:
        for part in parts:
            if isinstance(part, tarfile.TarInfo):
                tar.addfile(part)
                continue
            info = part[0] if isinstance(part[0], tarfile.TarInfo) else member(part[0])
            info.size = len(part[1])
            tar.addfile(info, io.BytesIO(part[1]))
    return out.getvalue()


def pack(
    blob: bytes | ByteSource,
    out: Path,
    *,
    options: PackOptions = KEEP_ALL,
    expected: LayerDigests | None = None,
    threads: int = 2,
    on_progress: Callable[[int], None] = lambda _: None,
    cancelled: threading.Event | None = None,
    limits: Limits | None = None,
) -> PackSummary:
    with Compressors(threads) as compressors:
        return pack_layer(
            io.BytesIO(blob) if isinstance(blob, bytes) else blob,
            expected=expected or LayerDigests(),
            options=options,
            out_path=out,
            compressors=compressors,
            on_progress=on_progress,
            cancelled=cancelled or threading.Event(),
            limits=limits or Limits(),
        )


@dataclass(frozen=True, slots=True)
class Built:
    """An image and what it was made of."""

    path: Path
    recipe: Recipe
    store: PackStore

    @property
    def content_digest(self) -> str:
        return self.recipe.content_digest


def add_pack(
    store: PackStore,
    blob: bytes,
    options: PackOptions,
    *,
    threads: int = 2,
    limits: Limits | None = None,
) -> str:
    """Pack a layer into the store; returns its key."""
    fresh = store.root / "fresh.pack"
    key = pack(blob, fresh, options=options, threads=threads, limits=limits).key
    place = store.pack_path(key)
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh.replace(place)
    return key


def build_image(
    layers: Sequence[bytes],
    root: Path,
    options: PackOptions = KEEP_ALL,
    *,
    threads: int = 2,
    max_dead_share: float = 1,
    codec: BlockCodec | None = None,
    limits: Limits | None = None,
) -> Built:
    """Pack, plan, weave and verify, and check what came out; `codec` is that of the tables."""
    store = PackStore(root / "store")
    keys = [add_pack(store, layer, options, threads=threads, limits=limits) for layer in layers]
    cancelled = threading.Event()
    indexes = read_indexes({key: store.pack_path(key) for key in keys}, cancelled=cancelled)
    recipe, tables = plan_image(
        [(key, indexes[key]) for key in keys],
        options=options,
        max_dead_share=max_dead_share,
        config=ImageConfig(),
        source=source_of(len(keys)),
        codec=codec or block_codec(options.compression, options.level),
        open_pack=store.open_pack,
        cancelled=cancelled,
    )
    store.put_tables(tables)
    path = root / "image.squashfs"
    weave(recipe, store, path, on_progress=lambda _: None, cancelled=cancelled)
    verify_image(path, recipe)
    report = check(path)
    assert report.exported
    assert not report.odd_directories
    return Built(path, recipe, store)
