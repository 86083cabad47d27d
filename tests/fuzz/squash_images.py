"""Small squashfs images to begin with, and changes to them that get behind their compression."""

import hashlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from shared.image.codecs import block_codec, block_expander
from shared.image.description import DESCRIPTION_VERSION, FOOTER_SIZE, MAGIC, document_length
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.kinds import METADATA_BLOCK, RAW_METADATA
from shared.image.recipe import Compression
from shared.image.squashfs.superblock import SIZE, Compressor, Superblock
from tests.fuzz.mutate import interesting, mutated, renumbered
from tests.support.packing import (
    KEEP_ALL,
    build_image,
    directory,
    hard_link,
    member,
    symlink,
    tar_of,
)
from tests.support.planned import Stored

_COMPRESSOR: Final = slice(20, 22)
_NUMBERS: Final[dict[int, Compressor]] = {1: "gzip", 4: "xz", 6: "zstd"}
_TAR: Final = tar_of(
    directory("d/e"),
    (member("d/file", pax_headers={"SCHILY.xattr.user.a": "1" * 9}), b"text" * 1500 + bytes(9000)),
    hard_link("d/name", "d/file"),
    symlink("d/link", "file"),
    member("d/device", b"3", devmajor=5, devminor=300),
    *[(f"big/{n:02}-{'n' * 200}", b"") for n in range(40)],
    ("small", b"x" * 100),
)
_CODECS: Final[dict[Compressor, Compression]] = {"gzip": "gzip", "zstd": "zstd"}
_LONGEST_TEXT: Final = 1 << 16
_SAID: Final = (
    *(b'"offset":', b'"length":', b'"segments":', b'"layers":', b'"tables":', b'"superblock":'),
    *(b"[]", b"{}", b"null", b"-1", b"1e400", b"9" * 30, b",", b'"', b"0" * 64),
)
_PSEUDO: Final = ("d/dev c 644 0 0 5 1", "d/block b 600 1 2 8 0", "d/pipe i 644 0 0 f")
_STORED: Final = ("-noI", "-noD", "-noF", "-noX", "-noId")


@cache
def images() -> list[bytes]:
    """Most have metadata that are not compressed, so that changes get to where they matter."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        ours = build_image([_TAR], root / "a", codec=Stored())
        plain = build_image([tar_of(("f", b"abc"))], root / "b", codec=Stored())
        compressed = build_image([_TAR], root / "c")
        found = [made.path.read_bytes() for made in (plain, ours, compressed)]
        return [*map(_without_description, found), *_of_mksquashfs(root)]


@cache
def described() -> list[bytes]:
    with tempfile.TemporaryDirectory() as place:
        options = KEEP_ALL.model_copy(update={"compression": "gzip"})
        root = Path(place)
        return [
            build_image([tar_of(("f", b"abc"))], root / "a").path.read_bytes(),
            build_image([tar_of(("f", b"abc"))], root / "b", options).path.read_bytes(),
        ]


def _without_description(image: bytes) -> bytes:
    return image[: Superblock.unpack(image).bytes_used]


def _of_mksquashfs(root: Path) -> Iterator[bytes]:
    """None where that is not installed."""
    program = shutil.which("mksquashfs")
    if program is None:
        return
    tree = root / "tree"
    (tree / "d" / "e").mkdir(parents=True)
    (tree / "d" / "file").write_bytes(b"text" * 1500)
    (tree / "d" / "name").hardlink_to(tree / "d" / "file")
    (tree / "d" / "link").symlink_to("../x")
    (tree / "sparse").write_bytes(b"a" * 4096 + bytes(8192) + b"b")
    options = ["-noappend", "-quiet", "-no-progress", "-nopad", "-all-root", "-b", "4096"]
    options += ["-mkfs-time", "0", "-all-time", "0", "-processors", "1"]
    for entry in _PSEUDO:
        options += ["-p", entry]
    variants = [("gzip", *_STORED), ("zstd", *_STORED, "-always-use-fragments")]
    variants += [(codec, "-exports") for codec in ("gzip", "xz", "lz4")]
    for number, (codec, *more) in enumerate(variants):
        path = root / f"{number}.squashfs"
        command = [program, str(tree), str(path), "-comp", codec, *options, *more]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            yield path.read_bytes()


def changed(image: bytes, random: Random) -> bytes:
    """Changes what blocks of metadata hold, and compresses some of them again."""
    new = bytearray(loosened(image))
    for _ in range(random.randint(1, 4)):
        match random.randrange(8):
            case 0:
                _write(new, 8 * random.randrange(SIZE // 8), random.choice((2, 4, 8)), random)
            case 1 | 2 | 3 | 4:
                first, last = _tables(new)
                place = random.randint(first, max(first, last))
                _write(new, place, random.choice((2, 2, 4, 4, 8)), random)
            case 5:
                _copy_inside(new, random)
            case _:
                new[:] = mutated(bytes(new), random)
    if random.randrange(3):
        return bytes(new)
    return squeezed(bytes(new), random.choice(tuple(_NUMBERS)))


def forged(image: bytes, random: Random) -> bytes:
    """Changes what the image says of itself; anybody can make the checksum right."""
    new = mutated(image, random) if not random.randrange(4) else image
    try:
        length = document_length(new[-FOOTER_SIZE:])
        codec = block_codec(_CODECS[Superblock.unpack(new).compression])
        document = new[-(length or 0) :]
        text = codec.decompress(document[:-FOOTER_SIZE], _LONGEST_TEXT)
    except (ImageCorruptError, ImageUnsupportedError, KeyError):
        return mutated(new, random)
    text = renumbered(text, random) if random.randrange(2) else mutated(text, random, _SAID)
    stored = codec.compress(text)
    size = len(text) if random.randrange(8) else interesting(random) % (1 << 32)
    covered = stored + MAGIC + struct.pack("<III", DESCRIPTION_VERSION, len(stored), size)
    return new[: len(new) - len(document)] + covered + hashlib.sha256(covered).digest()


def _tables(image: bytearray) -> tuple[int, int]:
    """Where metadata begin, and where all ends."""
    starts = _starts(image)
    return (starts[0] if starts else 0), len(image)


def _starts(image: bytes | bytearray) -> list[int]:
    if len(image) < SIZE:
        return []
    positions = struct.unpack_from("<6Q", image, 48)
    return sorted({position for position in positions if SIZE <= position < len(image)})


def _write(image: bytearray, at: int, width: int, random: Random) -> None:
    """A number that lies, or one that is true of something else."""
    if at + width > len(image):
        return
    here = int.from_bytes(image[at : at + width], "little")
    starts = _starts(image) or [0]
    number = random.choice(
        (
            interesting(random),
            here + random.choice((-3, -2, -1, 1, 2, 3, METADATA_BLOCK)),
            random.choice(starts) - random.choice((0, random.choice(starts))),
            len(image) - random.randrange(3),
            random.randrange(16),
        )
    )
    image[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")


def _copy_inside(image: bytearray, random: Random) -> None:
    first, last = _tables(image)
    length = random.choice((4, 8, 12, 16, 32))
    source, target = (random.randint(first, max(first, last)) for _ in range(2))
    piece = image[source : source + length]
    image[target : target + len(piece)] = piece


def _blocks(image: bytearray) -> Iterator[tuple[int, int]]:
    """Position and header of the blocks that follow each other from the start of each table."""
    starts = [*_starts(image), len(image)]
    for start, end in pairwise(starts):
        at = start
        while at + 2 < end:
            header = int.from_bytes(image[at : at + 2], "little")
            size = header & (RAW_METADATA - 1)
            if not 0 < size <= METADATA_BLOCK or at + 2 + size > end:
                break
            yield at, header
            at += 2 + size


def squeezed(image: bytes, number: int) -> bytes:
    """Stored blocks compressed where they stand; what that saves is filled up, and none moves."""
    new = bytearray(image)
    if len(new) < SIZE:
        return image
    name = _NUMBERS[number]
    for at, header in list(_blocks(new)):
        if not header & RAW_METADATA:
            continue
        size = header & (RAW_METADATA - 1)
        packed = _compressed(name, bytes(new[at + 2 : at + 2 + size]))
        if len(packed) <= size:
            new[at : at + 2] = size.to_bytes(2, "little")
            new[at + 2 : at + 2 + size] = packed.ljust(size, b"\0")
    new[_COMPRESSOR] = number.to_bytes(2, "little")
    return bytes(new)


def _compressed(name: Compressor, content: bytes) -> bytes:
    if name in {"zstd", "gzip"}:
        return block_codec("zstd" if name == "zstd" else "gzip").compress(content)
    import lzma  # noqa: PLC0415 - not every Python has it

    # With a dictionary for a block, as mksquashfs has it, and none of the usual 8 MiB.
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": METADATA_BLOCK}]
    return lzma.compress(content, check=lzma.CHECK_CRC32, filters=filters)


def loosened(image: bytes) -> bytes:
    """The reverse, where there is room: blocks that tools compressed stay as they are."""
    new = bytearray(image)
    number = int.from_bytes(new[_COMPRESSOR], "little")
    if len(new) < SIZE or number not in _NUMBERS:
        return image
    expander = block_expander(_NUMBERS[number])
    for at, header in list(_blocks(new)):
        if header & RAW_METADATA:
            continue
        try:
            content = expander.decompress(bytes(new[at + 2 : at + 2 + header]), METADATA_BLOCK)
        except ImageCorruptError:
            continue
        if len(content) == header:
            new[at : at + 2] = (header | RAW_METADATA).to_bytes(2, "little")
            new[at + 2 : at + 2 + header] = content
    return bytes(new)
