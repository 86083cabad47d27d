"""Planning costs no more than an image may, and ends when nobody wants it any more."""

import threading
import time
from pathlib import Path

import pytest

from shared.image import kinds
from shared.image.codecs import Zstd
from shared.image.errors import (
    ImageTooLargeError,
    ImageUnsupportedError,
    PackCorruptError,
    WorkCancelledError,
)
from shared.image.merging.budget import MAX_DEPTH, Budget, ImageLimits
from shared.image.merging.live import Layer
from shared.image.merging.tree import Directory, Tree
from shared.image.packs.index import PackIndex
from shared.image.planning.plan import plan_image, read_indexes
from shared.image.recipe import ImageConfig, PackKey, PackOptions, Recipe
from tests.support.noise import noise
from tests.support.packing import (
    KEEP_ALL,
    Part,
    directory,
    pack,
    source_of,
    symlink,
    tar_of,
)


def planned(
    tmp_path: Path,
    *layers: list[Part],
    limits: ImageLimits | None = None,
    cancelled: threading.Event | None = None,
    codec: Zstd | None = None,
) -> Recipe:
    limits, cancelled = limits or ImageLimits(), cancelled or threading.Event()
    paths: dict[PackKey, Path] = {}
    order = []
    for number, parts in enumerate(layers):
        path = tmp_path / f"pack{number}"
        order.append(pack(tar_of(*parts), path).key)
        paths[order[-1]] = path
    indexes = read_indexes(paths, cancelled=cancelled, limits=limits)
    recipe, _ = plan_image(
        [(key, indexes[key]) for key in order],
        options=KEEP_ALL,
        max_dead_share=1,
        config=ImageConfig(),
        source=source_of(len(order)),
        codec=codec or Zstd(1),
        open_pack=lambda key: paths[key].open("rb"),
        cancelled=cancelled,
        limits=limits,
    )
    return recipe


LAYERS: list[list[Part]] = [
    [("a", b""), ("b", b"")],
    [("c/d/e", b""), ("b", b"")],
]


def test_the_entries_of_all_layers_and_implicit_directories_count(tmp_path: Path) -> None:
    assert planned(tmp_path, *LAYERS, limits=ImageLimits(max_nodes=6)).inodes == 6
    with pytest.raises(ImageTooLargeError, match="6 files and directories or more, and 5 are"):
        planned(tmp_path, *LAYERS, limits=ImageLimits(max_nodes=5))


def test_entries_are_counted_while_packs_are_loaded(tmp_path: Path) -> None:
    key = pack(tar_of(("a", b""), ("b", b"")), tmp_path / "p").key
    with pytest.raises(ImageTooLargeError, match="2 files"):
        read_indexes(
            {key: tmp_path / "p"}, cancelled=threading.Event(), limits=ImageLimits(max_nodes=1)
        )


def test_too_many_packs_are_not_even_loaded(tmp_path: Path) -> None:
    key = pack(tar_of(*[(f"{n}" * 50, b"") for n in range(300)]), tmp_path / "p").key
    content = bytearray((tmp_path / "p").read_bytes())
    content[0] ^= 1  # an empty data region: this is the index
    (tmp_path / "p").write_bytes(content)
    paths = {key: tmp_path / "p"}
    with pytest.raises(PackCorruptError):
        read_indexes(paths, cancelled=threading.Event())
    with pytest.raises(ImageTooLargeError, match="0 MiB are allowed"):
        read_indexes(paths, cancelled=threading.Event(), limits=ImageLimits(max_index_bytes=999))


def test_layers_cannot_build_deeper_and_deeper_through_symlinks(tmp_path: Path) -> None:
    half = "/".join(["d"] * (MAX_DEPTH // 2))
    first: list[Part] = [directory(half), symlink("s", half)]
    most = "/".join(["e"] * (MAX_DEPTH // 2))
    assert planned(tmp_path, first, [(f"s/{most}", b"")]).inodes == MAX_DEPTH + 2
    with pytest.raises(ImageTooLargeError, match=f"{MAX_DEPTH} deep"):
        planned(tmp_path, first, [(f"s/{most}/f", b"")])


def test_directories_may_be_looked_for_so_far(tmp_path: Path) -> None:
    # Each directory is found through four links, whose targets have 20 parts.
    target = "./" * 18 + "link"
    links: list[Part] = [symlink(f"link{n}", f"{target}{n + 1}") for n in range(3)]
    parts: list[Part] = [directory("real"), *links, symlink("link3", "real")]
    parts += [(f"link0/{n}/f", b"") for n in range(100)]
    # The root, and the two parts of each path.
    steps = 100 * (2 + 3 * 19 + 1) + 1
    planned(tmp_path, parts, limits=ImageLimits(max_steps=steps))
    with pytest.raises(ImageTooLargeError, match=f"more than {steps - 1:,} steps"):
        planned(tmp_path, parts, limits=ImageLimits(max_steps=steps - 1))


def test_an_entry_that_makes_all_paths_unknown_again_costs_what_it_causes(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 100)
    pairs: list[list[Part]] = [[symlink("s", "d"), (f"{deep}/f{n}", b"")] for n in range(50)]
    parts = [part for pair in pairs for part in pair]
    planned(tmp_path, parts, limits=ImageLimits(max_steps=50 * 101))
    with pytest.raises(ImageTooLargeError, match="steps"):
        planned(tmp_path, parts, limits=ImageLimits(max_steps=50 * 100))


class CancellingCodec(Zstd):
    """Its owner gives up when so many blocks of tables have been made."""

    def __init__(self, cancelled: threading.Event, blocks: int) -> None:
        super().__init__(1)
        self.cancelled = cancelled
        self.left = blocks
        self.made = 0

    def compress(self, block: bytes, /) -> bytes:
        self.made += 1
        if self.made == self.left:
            self.cancelled.set()
        return super().compress(block)


def test_tables_that_squashfs_cannot_address_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of four gigabytes they would take minutes.
    monkeypatch.setattr("shared.image.squashfs.metadata._MAX_TABLE", 5000)
    planned(tmp_path, [("a", b"")])
    with pytest.raises(ImageUnsupportedError, match="too many files for one squashfs"):
        planned(tmp_path, [(f"{noise(60, n).hex()}", b"") for n in range(200)])


def test_planning_ends_soon_after_it_was_cancelled(tmp_path: Path) -> None:
    cancelled = threading.Event()
    codec = CancellingCodec(cancelled, 3)
    parts: list[Part] = [(f"a-file-{n}", b"") for n in range(5000)]
    with pytest.raises(WorkCancelledError):
        planned(tmp_path, parts, cancelled=cancelled, codec=codec)
    assert codec.made == 3
    with pytest.raises(WorkCancelledError):
        planned(tmp_path, parts, cancelled=cancelled)


def index_of(*rows: tuple[int, bytes, bytes]) -> PackIndex:
    """Entries by kind, parent and name; each symlink leads to "x"."""
    index = PackIndex(compression="zstd", block_size=PackOptions().block_size, targets=[b"x"])
    known: dict[bytes, int] = {}
    for kind, parent, name in rows:
        index.kinds.append(kind)
        index.parents.append(known.setdefault(parent, len(known)))
        index.names.append(name)
        index.details.append(0)
    index.directories = list(known)
    return index


def test_replacing_symlinks_does_not_cost_all_directories_each_time() -> None:
    directories = [(kinds.FIFO, b"%d" % n, b"f") for n in range(200_000)]
    links = [(kinds.SYMLINK, b"", b"l%d" % n) for n in range(10_000)]
    tree = Tree(Budget(ImageLimits(), threading.Event()))
    started = time.process_time()
    tree.apply(Layer(index_of(*directories, *links, *links)))
    # In proportion to the entries it is well under a second; else tens of seconds.
    assert time.process_time() - started < 4
    assert len(tree.root.children) == 210_000


def test_what_was_known_of_a_replaced_symlink_is_forgotten() -> None:
    tree = Tree(Budget(ImageLimits(), threading.Event()))
    rows = [
        (kinds.SYMLINK, b"", b"l"),
        (kinds.FIFO, b"l", b"first"),
        (kinds.DIRECTORY, b"", b"l"),
        (kinds.FIFO, b"l", b"second"),
    ]
    tree.apply(Layer(index_of(*rows)))
    x, link = tree.root.children[b"x"], tree.root.children[b"l"]
    assert isinstance(x, Directory)
    assert isinstance(link, Directory)
    assert (set(x.children), set(link.children)) == ({b"first"}, {b"second"})


def test_cancelling_is_noticed_between_rows() -> None:
    cancelled = threading.Event()
    cancelled.set()
    tree = Tree(Budget(ImageLimits(), cancelled))
    with pytest.raises(WorkCancelledError):
        tree.apply(Layer(index_of((kinds.FIFO, b"", b"f"))))
