"""Counting adds up, whoever counts and in whatever order it is stored."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.usage import counting as module
from services.gateway.usage.counting import Counting, User
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError
from tests.support.catalogs import opened
from tests.support.conditions import eventually
from tests.support.usage import ADA, BOB, Image, counting, stored

IMAGES = (Image(), Image(private=True, owner=1000), Image("docker.io/x/y:1", None))
USERS = (ADA, BOB, User("slurm", None))
KINDS = ("lookups", "pulls", "jobs")

uses = st.tuples(
    st.sampled_from(KINDS), st.sampled_from(range(len(USERS))), st.sampled_from(range(len(IMAGES)))
)
steps = st.lists(st.tuples(st.integers(0, 2), st.none() | uses), max_size=40)


@settings(max_examples=25, deadline=None)
@given(steps)
async def test_several_gateways_add_up(
    steps: list[tuple[int, tuple[str, int, int] | None]],
) -> None:
    expected: Counter[tuple[str, int | None, str, bool, str]] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        async with opened(f"sqlite://{directory}/catalog.db") as catalog:
            gateways = [counting(catalog) for _ in range(3)]
            for number, use in steps:
                if use is None:
                    await gateways[number].flush()
                    continue
                kind, who, what = use
                gateways[number].note(kind, USERS[who], IMAGES[what])  # type: ignore[arg-type]
                image = IMAGES[what]
                named = (USERS[who].name, USERS[who].uid, image.reference, image.private)
                expected[*named, kind] += 1
            for gateway in gateways:
                await gateway.flush()
            found: Counter[tuple[str, int | None, str, bool, str]] = Counter()
            for record in await stored(catalog):
                assert record.due_at == record.last
                named = (record.user, record.uid, record.reference, record.private)
                for kind in KINDS:
                    found[*named, kind] += getattr(record, kind)
    assert +found == expected


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/catalog.db"


async def test_what_the_catalog_did_not_take_waits_for_the_next_flush(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url) as catalog:
        gateway = counting(catalog)
        gateway.note("lookups", ADA, IMAGES[0])
        gateway.note("lookups", BOB, IMAGES[0])
        with monkeypatch.context() as broken:
            broken.setattr(catalog.usage, "change", _away)
            await gateway.flush()
        gateway.note("lookups", ADA, IMAGES[0])
        await gateway.flush()
        assert {record.user: record.lookups for record in await stored(catalog)} == {
            "ada": 2,
            "bob": 1,
        }


async def _away(*_: object) -> None:
    raise CatalogUnavailableError("away")


async def test_memory_is_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    async with opened(url) as catalog:
        gateway = counting(catalog)
        for number in range(5):
            gateway.note("lookups", User(f"u{number}", number), IMAGES[0])
        gateway.note("lookups", User("u0", 0), IMAGES[0])
        await gateway.flush()
        found = {record.user: record.lookups for record in await stored(catalog)}
        assert found == {"u0": 2, "u1": 1, "u2": 1}


async def test_it_is_stored_by_itself_and_at_the_end(url: str) -> None:
    async with opened(url) as catalog:
        gateway = Counting(catalog, interval=0.01, timeout=10)
        gateway.start()
        gateway.note("jobs", ADA, IMAGES[0])

        async def flushed() -> bool:
            return len(await stored(catalog)) == 1

        await eventually(flushed, within=10)
        await gateway.stop(Deadline.after(10))
        slow = counting(catalog)
        slow.start()
        slow.note("jobs", ADA, IMAGES[0])
        await slow.stop(Deadline.after(10))
        assert sum(record.jobs for record in await stored(catalog)) == 2


async def test_a_key_says_what_is_counted_and_nothing_else(url: str) -> None:
    async with opened(url) as catalog:
        gateway = counting(catalog)
        gateway.note("lookups", User("a/../b" * 1000, 1), Image("r" * 5000))
        await gateway.flush()
        [record] = await stored(catalog)
        assert len(record.key) == len("2026-11-21T09/") + 40
