"""Equal files of a layer are stored once, whatever their size, and everything reads as before."""

import io
import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.packing import Compressors, LayerDigests, pack_layer
from services.converter.packing import fragments as fragments_module
from shared.image.packs.index import PackIndex
from shared.image.packs.pack import read_index
from shared.image.recipe import Compression, PackOptions
from tests.support.overlay_model import expected_rows
from tests.support.packing import KEEP_ALL, Part, build_image, pack, tar_of
from tests.support.rawtar import END, old_sparse_header, padded
from tests.support.trees import image_rows

RANDOM = random.Random(23)
NOISE = RANDOM.randbytes(400_000)
TEXT = b"".join(b"%d bottles of beer\n" % RANDOM.randrange(10**9) for _ in range(20_000))
BLOCK = 4096


def index_of(tar: bytes, place: Path, options: PackOptions = KEEP_ALL) -> PackIndex:
    return read_index(place, pack(tar, place, options=options).key)


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


STORED_ONCE = {
    "small": TEXT[:3000],
    "one block": NOISE[:BLOCK],
    "one block and an end": NOISE[: BLOCK + 1500],
    "many blocks": NOISE,
    "blocks that shrink": TEXT[:200_000],
    "holes": NOISE[:9000] + bytes(5 * BLOCK) + NOISE[:5000],
    "holes first": bytes(5 * BLOCK) + TEXT[:50_500],
    "nothing but holes": bytes(20 * BLOCK),
}


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("case", STORED_ONCE)
def test_an_equal_file_takes_no_space(tmp_path: Path, case: str, compression: Compression) -> None:
    content = STORED_ONCE[case]
    options = KEEP_ALL.model_copy(update={"compression": compression})
    others: list[Part] = [("between", NOISE[7:]), ("end", TEXT[9:2000])]
    once = index_of(tar_of(("a", content), *others), tmp_path / "once", options)
    tar = tar_of(("a", content), ("b", content), *others, ("c", content))
    twice = index_of(tar, tmp_path / "twice", options)
    assert (twice.data_length, twice.data_sha256) == (once.data_length, once.data_sha256)
    assert (twice.blocks, twice.fragments) == (once.blocks, once.fragments)
    built = build_image([tar], tmp_path, options)
    assert image_rows(built.path) == expected_rows([tar], options)


NEARLY_EQUAL = {
    "first byte": (NOISE, changed(NOISE, 0)),
    "middle": (NOISE, changed(NOISE, 222_222)),
    "last whole block": (NOISE[: 9 * BLOCK], changed(NOISE[: 9 * BLOCK], 9 * BLOCK - 1)),
    "end": (NOISE[: BLOCK + 2000], changed(NOISE[: BLOCK + 2000], BLOCK + 1000)),
    "one is longer": (NOISE[: 9 * BLOCK], NOISE[: 10 * BLOCK]),
    "an end more": (NOISE[: 9 * BLOCK], NOISE[: 9 * BLOCK + 1500]),
    "small": (TEXT[:2000], changed(TEXT[:2000], 1999)),
    "swapped blocks": (NOISE[: 2 * BLOCK], NOISE[BLOCK : 2 * BLOCK] + NOISE[:BLOCK]),
    "hole elsewhere": (
        bytes(BLOCK) + NOISE[: 2 * BLOCK],
        NOISE[:BLOCK] + bytes(BLOCK) + NOISE[BLOCK : 2 * BLOCK],
    ),
}


@pytest.mark.parametrize("case", NEARLY_EQUAL)
def test_what_is_only_similar_stays_what_it_is(tmp_path: Path, case: str) -> None:
    one, other = NEARLY_EQUAL[case]
    tar = tar_of(("a", one), ("b", other), ("c", one), ("d", other), ("e", NOISE[5:9000]))
    assert image_rows(build_image([tar], tmp_path).path) == expected_rows([tar], KEEP_ALL)


def test_equal_checksums_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Constant:
        @staticmethod
        def crc32(_: bytes) -> int:
            return 42

    monkeypatch.setattr(fragments_module, "load", lambda _: Constant)
    parts: list[Part] = [(f"f{n}", TEXT[n * 1500 :][:1500]) for n in range(50)]
    tar = tar_of(*parts, *[(f"g{n}", TEXT[n * 1500 :][:1500]) for n in range(50)])
    assert image_rows(build_image([tar], tmp_path).path) == expected_rows([tar], KEEP_ALL)


def test_a_twin_is_found_in_a_fragment_that_was_written_long_ago(tmp_path: Path) -> None:
    """Far more lies between than is kept in memory."""
    content = TEXT[:3500]
    between: list[Part] = [(f"f{n}", NOISE[n * 3 :][:3900]) for n in range(700)]
    once = index_of(tar_of(("a", content), *between), tmp_path / "once")
    twice = index_of(tar_of(("a", content), *between, ("b", content)), tmp_path / "twice")
    assert twice.data_sha256 == once.data_sha256
    assert twice.file_fragments[0] == twice.file_fragments[-1]


def test_a_sparse_file_and_a_full_one_may_be_equal(tmp_path: Path) -> None:
    full = NOISE[:BLOCK] + bytes(3 * BLOCK)
    sparse = old_sparse_header(b"s", [(0, BLOCK)], len(full), BLOCK) + padded(NOISE[:BLOCK])
    tar = tar_of(("a", full))[: 512 + len(full)] + sparse + END
    index = index_of(tar, tmp_path / "p")
    assert list(index.file_starts) == [0, 0]
    assert index.data_length == BLOCK


def test_very_many_files_of_one_size_are_no_burden(tmp_path: Path) -> None:
    """Only the first few of a size are compared with: what comes later is stored as it is."""
    parts: list[Part] = [(f"f{n}", NOISE[n : n + BLOCK]) for n in range(40)]
    again: list[Part] = [(f"g{n}", NOISE[n : n + BLOCK]) for n in range(40)]
    index = index_of(tar_of(*parts, *again), tmp_path / "p")
    assert 40 * BLOCK < index.data_length < 80 * BLOCK
    assert image_rows(build_image([tar_of(*parts, *again)], tmp_path).path) == expected_rows(
        [tar_of(*parts, *again)], KEEP_ALL
    )


class Trickle(io.BytesIO):
    """Bytes that arrive in pieces of any size."""

    def __init__(self, data: bytes, seed: int) -> None:
        super().__init__(data)
        self._random = random.Random(seed)

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        return super().read(self._random.randint(1, min(size, 70_000)))


SIZES = (0, 1, 1023, 1024, 2000, 4095, 4096, 4097, 6000, 8192, 20_000, 66_000)
# By name: examples are printed.
CONTENTS = {"noise": NOISE, "text": TEXT, "zeros": bytes(70_000)}
FILES = st.lists(
    st.tuples(st.sampled_from(sorted(CONTENTS)), st.sampled_from(SIZES)),
    min_size=1,
    max_size=40,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=FILES, seed=st.integers(0, 1 << 20))
def test_any_layer_reads_as_it_was_however_it_arrives_and_whoever_compresses(
    files: list[tuple[str, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("twins")
    contents = [CONTENTS[name][:size] for name, size in files]
    tar = tar_of(*[(f"f{n}", content) for n, content in enumerate(contents)])
    packs = set()
    for threads in (1, 3):
        out = place / f"{threads}.pack"
        with Compressors(threads) as compressors:
            pack_layer(
                Trickle(tar, seed + threads),
                expected=LayerDigests(),
                options=KEEP_ALL,
                out_path=out,
                compressors=compressors,
                on_progress=lambda _: None,
                cancelled=threading.Event(),
            )
        packs.add(out.read_bytes())
    assert len(packs) == 1
    assert image_rows(build_image([tar], place).path) == expected_rows([tar], KEEP_ALL)
    # For the smallest ends of files no twin is looked for.
    most = sum(map(len, {*contents}))
    again = [content for n, content in enumerate(contents) if content in contents[:n]]
    ends = [len(content) % BLOCK for content in again]
    most += sum(end for end in ends if end < fragments_module._WORTH_LOOKING)
    assert pack(tar, place / "p").data_length <= most
