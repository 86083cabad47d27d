"""Dead data: what is counted, which packs are taken in pieces, and where the pieces are cut."""

import hashlib
import io
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import MAX_EVENT_BYTES
from shared.image.errors import PackCorruptError, WorkCancelledError
from shared.image.kinds import ALIGNMENT
from shared.image.merging.budget import Budget, ImageLimits
from shared.image.merging.live import Extent
from shared.image.planning.squeeze import (
    MAX_PIECES,
    MIN_GAP,
    Pieces,
    Squeezed,
    choose_pieces,
    digest_pieces,
)
from shared.image.recipe import ImageLayer, PackOptions, Recipe, Segment
from tests.support.noise import noise
from tests.support.packing import Built, Part, build_image, hard_link, tar_of
from tests.support.recipes import small_recipe
from tests.support.trees import image_rows

BLOCK = 4096
OPTIONS = PackOptions(block_size=BLOCK)
MIB = 1 << 20


def built(
    place: Path, *layers: list[Part], max_dead_share: float = 1, options: PackOptions = OPTIONS
) -> Built:
    tars = [tar_of(*layer) for layer in layers]
    return build_image(tars, place, options, max_dead_share=max_dead_share)


def layers_of(place: Path, *layers: list[Part]) -> tuple[ImageLayer, ...]:
    return built(place, *layers).recipe.layers


def test_an_image_whose_files_are_all_there_has_no_dead_data(tmp_path: Path) -> None:
    layers = layers_of(tmp_path, [("a", noise(10_000)), ("b", noise(5, 2))], [("c", noise(3))])
    assert [layer.live for layer in layers] == [layer.length for layer in layers]
    assert [layer.length > 0 for layer in layers] == [True, True]


@pytest.mark.parametrize("how", ["whiteout", "opaque", "overwritten", "replaced", "a directory"])
def test_blocks_of_files_that_upper_layers_hide_are_dead(tmp_path: Path, how: str) -> None:
    lower: list[Part] = [("d/a", noise(8 * BLOCK)), ("kept", noise(2 * BLOCK, 2))]
    upper: dict[str, Part] = {
        "whiteout": ("d/.wh.a", b""),
        "opaque": ("d/.wh..wh..opq", b""),
        "overwritten": ("d/a", b""),
        "replaced": ("d", b""),
        "a directory": ("d/a/b", b""),
    }
    lowest, _ = layers_of(tmp_path, lower, [upper[how]])
    assert (lowest.length, lowest.live) == (10 * BLOCK, 2 * BLOCK)


def test_the_first_of_two_entries_of_one_layer_is_dead(tmp_path: Path) -> None:
    (layer,) = layers_of(tmp_path, [("a", noise(3 * BLOCK)), ("a", noise(BLOCK, 2))])
    assert (layer.length, layer.live) == (4 * BLOCK, BLOCK)


def test_a_file_lives_as_long_as_one_of_its_names(tmp_path: Path) -> None:
    lower: list[Part] = [("a", noise(3 * BLOCK)), hard_link("b", "a"), ("c", noise(BLOCK, 2))]
    assert layers_of(tmp_path / "1", lower, [(".wh.a", b"")])[0].live == 4 * BLOCK
    gone: list[Part] = [(".wh.a", b""), (".wh.b", b"")]
    assert layers_of(tmp_path / "2", lower, gone)[0].live == BLOCK


def test_a_fragment_block_lives_as_long_as_one_file_needs_it(tmp_path: Path) -> None:
    lower: list[Part] = [("a", noise(100)), ("b", noise(200, 2))]
    one, _ = layers_of(tmp_path / "1", lower, [(".wh.a", b"")])
    assert one.live == one.length >= 300
    both, _ = layers_of(tmp_path / "2", lower, [(".wh.a", b""), (".wh.b", b"")])
    assert (both.live, both.length) == (0, one.length)


def test_a_layer_that_occurs_twice_may_live_by_its_second_occurrence(tmp_path: Path) -> None:
    layer: list[Part] = [("a", noise(4 * BLOCK))]
    lowest, _, highest = layers_of(tmp_path, layer, [(".wh.a", b"")], layer)
    assert lowest == highest
    assert lowest.live == 4 * BLOCK


def half_dead(place: Path, max_dead_share: float) -> Recipe:
    lower: list[Part] = [("a", noise(MIB)), ("b", noise(MIB, 2)), ("c", noise(MIB, 3))]
    options = PackOptions()
    return built(
        place, lower, [(".wh.b", b"")], max_dead_share=max_dead_share, options=options
    ).recipe


def test_the_limit_decides_whether_an_image_has_dead_data(tmp_path: Path) -> None:
    whole = half_dead(tmp_path / "whole", 0.34)
    (segment,) = whole.segments
    assert (segment.source, segment.length) == (0, 3 * MIB)
    squeezed = half_dead(tmp_path / "squeezed", 0.33)
    assert [(s.source, s.length) for s in squeezed.segments] == [(0, MIB), (2 * MIB, MIB)]
    assert whole.size - squeezed.size == MIB
    assert whole.layers == squeezed.layers
    assert whole.image_id != squeezed.image_id, "it names the bytes"


def test_a_limit_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    assert half_dead(tmp_path / "1", 0.34) == half_dead(tmp_path / "2", 1)


def test_what_is_squeezed_shows_the_same_tree_and_keeps_healthy_packs_whole(
    tmp_path: Path,
) -> None:
    dying: list[Part] = [(f"d/{n}", noise(70_000 + n, n)) for n in range(40)]
    healthy: list[Part] = [(f"h/{n}", noise(50_000 + n, n)) for n in range(60)]
    gone: list[Part] = [(f"d/.wh.{n}", b"") for n in range(40) if n % 3]
    gone += [("h/7", b"changed")]
    whole = built(tmp_path / "whole", dying, healthy, gone, options=PackOptions())
    small = built(
        tmp_path / "small", dying, healthy, gone, options=PackOptions(), max_dead_share=0.1
    )
    assert image_rows(small.path) == image_rows(whole.path)
    keys = [layer.pack for layer in small.recipe.layers]
    pieces = [sum(s.pack == key for s in small.recipe.segments) for key in keys]
    assert pieces[0] > 10
    assert pieces[1:] == [1, 1]
    dead = sum(segment.length for segment in small.recipe.segments) - sum(
        layer.live for layer in small.recipe.layers
    )
    assert dead < 0.1 * sum(layer.length for layer in small.recipe.layers)


def test_a_pack_that_is_dead_as_a_whole_is_left_out_and_not_read(tmp_path: Path) -> None:
    image = built(tmp_path, [("a", noise(MIB))], [(".wh.a", b""), ("b", b"x")], max_dead_share=0.5)
    assert [segment.pack for segment in image.recipe.segments] == [image.recipe.layers[1].pack]
    assert set(image_rows(image.path)) == {b"", b"b"}


def test_files_that_are_nothing_but_holes_need_no_data(tmp_path: Path) -> None:
    lower: list[Part] = [("a", noise(MIB)), ("holes", bytes(MIB)), ("empty", b"")]
    image = built(tmp_path, lower, [(".wh.a", b"")], max_dead_share=0)
    assert image.recipe.segments == ()
    detail = (MIB, hashlib.sha256(bytes(MIB)).hexdigest())
    assert image_rows(image.path)[b"holes"].detail == detail


EXTENTS = st.lists(st.integers(0, 5_000_000), min_size=0, max_size=60, unique=True).map(
    lambda cuts: tuple(Extent(a, b) for a, b in zip(*[iter(sorted(cuts))] * 2, strict=False))
)


@given(
    st.lists(EXTENTS, min_size=1, max_size=5),
    st.sampled_from([0, 0.1, 0.5, 0.9]),
    st.integers(0, 40),
)
def test_pieces_hold_all_that_lives_and_little_else(
    packs: list[tuple[Extent, ...]], limit: float, most: int
) -> None:
    extents = {str(number): found for number, found in enumerate(packs)}
    lengths = {key: 5_000_000 + int(key) for key in extents}
    chosen = choose_pieces(extents, lengths, max_dead_share=limit, max_pieces=most)
    total = sum(lengths.values())
    dead = total - sum(extent.length for found in packs for extent in found)
    assert list(chosen) == list(extents)
    assert sum(map(len, chosen.values())) <= max(most, len(extents))
    for key, pieces in chosen.items():
        assert_sound(pieces, lengths[key])
        assert all(
            any(p.start <= extent.start and extent.end <= p.end for p in pieces)
            for extent in extents[key]
        )
        of_this = lengths[key] - sum(extent.length for extent in extents[key])
        if dead <= limit * total or of_this <= limit * lengths[key]:
            assert pieces == (Extent(0, lengths[key]),)
        elif most > 200:
            kept = sum(p.length for p in pieces)
            assert kept <= lengths[key] - of_this + len(extents[key]) * (MIN_GAP + 2 * ALIGNMENT)


def assert_sound(pieces: Pieces, length: int) -> None:
    assert all(piece.length > 0 and piece.start % ALIGNMENT == 0 for piece in pieces)
    assert all(piece.end % ALIGNMENT == 0 or piece.end == length for piece in pieces)
    ends = [0, *(piece.end for piece in pieces)]
    gaps = [piece.start - end for piece, end in zip(pieces, ends, strict=False)]
    assert all(gap >= MIN_GAP for gap in gaps[1:])
    assert ends[-1] <= length


def test_of_too_many_gaps_the_largest_are_left_out() -> None:
    # Live pages with gaps of growing width between them.
    starts = [n * (n + 1) // 2 * MIN_GAP for n in range(1, 30)]
    extents = tuple(Extent(start, start + ALIGNMENT) for start in starts)
    chosen = choose_pieces(
        {"k": extents}, {"k": starts[-1] + ALIGNMENT}, max_dead_share=0, max_pieces=4
    )
    assert [piece.start for piece in chosen["k"]] == [starts[0], *starts[-3:]]


def test_a_recipe_of_so_many_pieces_fits_into_an_event() -> None:
    segment = Segment(
        pack="a" * 64, offset=1 << 39, length=1 << 36, sha256="b" * 64, source=1 << 38
    )
    recipe = small_recipe().model_copy(update={"segments": (segment,) * MAX_PIECES})
    assert len(recipe.model_dump_json()) < MAX_EVENT_BYTES / 3


def budget(cancelled: threading.Event | None = None) -> Budget:
    return Budget(ImageLimits(), cancelled or threading.Event())


DATA = noise(3 * MIB)
PACK = Squeezed(
    key="a" * 64,
    length=3 * MIB - 5,
    sha256=hashlib.sha256(DATA[:-5]).hexdigest(),
    pieces=(Extent(4096, 2 * MIB), Extent(2 * MIB + 8192, 3 * MIB - 5)),
)


def test_pieces_have_digests_of_their_own() -> None:
    found = digest_pieces([PACK], lambda _: io.BytesIO(DATA), budget())
    assert found == {
        PACK.key: [hashlib.sha256(DATA[p.start : p.end]).hexdigest() for p in PACK.pieces]
    }


@pytest.mark.parametrize("at", [0, 5000, 2 * MIB + 100, 3 * MIB - 6])
def test_a_damaged_pack_is_noticed_even_where_its_data_are_dead(at: int) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= 1
    with pytest.raises(PackCorruptError, match="damaged"):
        digest_pieces([PACK], lambda _: io.BytesIO(damaged), budget())
    with pytest.raises(PackCorruptError, match="too early"):
        digest_pieces([PACK], lambda _: io.BytesIO(damaged[:at]), budget())


def test_the_first_error_is_told_and_ends_the_reading_of_other_packs() -> None:
    other = Squeezed("b" * 64, 1 << 62, PACK.sha256, (Extent(0, 1 << 62),))

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return bytes(size or 0)

    def open_pack(key: str) -> io.BytesIO:
        return Endless() if key == other.key else io.BytesIO(b"short")

    with pytest.raises(PackCorruptError, match="too early"):
        digest_pieces([PACK, other], open_pack, budget())


def test_reading_packs_ends_when_nobody_wants_it_any_more() -> None:
    cancelled = threading.Event()

    class Cancelling(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            cancelled.set()
            return super().read(size)

    with pytest.raises(WorkCancelledError):
        digest_pieces([PACK], lambda _: Cancelling(DATA), budget(cancelled))


def test_what_begins_in_the_page_where_a_piece_begins_belongs_to_it() -> None:
    far = 40 * ALIGNMENT
    extents = (
        Extent(0, ALIGNMENT),
        Extent(far + 10, far + 20),
        Extent(far + 30, far + 40),
        Extent(far + 50, far + 60),
    )
    pieces = choose_pieces({"p": extents}, {"p": far + 9 * ALIGNMENT}, max_dead_share=0)
    assert pieces["p"] == (Extent(0, ALIGNMENT), Extent(far, far + ALIGNMENT))
