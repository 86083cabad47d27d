"""The dashboard's stream over real gateways: what is in it, for whose eyes, and until when."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.gateway.auth.identity import Scope
from services.gateway.auth.tokens import Claims
from services.gateway.live.stream import PACE_SECONDS, pace
from shared.catalog.interface import Catalog
from shared.events import new_id
from shared.states import State
from tests.support.catalogs import opened, put, soon
from tests.support.lifecycle import image, stored
from tests.support.two_gateways import Pair, Told, following, pair

OWNER, STRANGER = 4201, 4202


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with opened(f"sqlite://{tmp_path}/catalog.db") as catalog:
        yield catalog


@pytest.fixture
async def two(tmp_path: Path, catalog: Catalog) -> AsyncIterator[Pair]:
    async with pair(tmp_path, f"sqlite://{tmp_path}/catalog.db") as running:
        yield running


async def begun(catalog: Catalog, name: str, *, owner: int | None = None) -> str:
    """A pull under way, as some other gateway would store it."""
    record = image(name, owner=owner, state=State.PULLING, current=None, image_id=None)
    await catalog.images.change(record.key, put(record), soon())
    return record.pull_id


async def ended(catalog: Catalog, name: str) -> None:
    record = await stored(catalog, name)
    await catalog.images.change(record.key, put(record.but(state=State.READY)), soon())


async def test_one_stream_tells_the_queue_the_overview_and_the_jobs(
    two: Pair, catalog: Catalog
) -> None:
    admin = two.token(0, Scope.ADMIN)
    debian = image("debian")
    await catalog.images.change(debian.key, put(debian), soon())
    async with following(two.b, "/live", token=admin) as stream:
        first = {told.kind: told.data for told in [await _next(stream.next) for _ in range(3)]}
        assert first["snapshot"] == {"items": [], "next": None}
        assert first["jobs"] == {"items": [], "next": None}
        assert sum(stage["pulls"] for stage in first["overview"]["stages"]) == 0
        assert first["overview"]["nodes"] == {"alive": 0, "lost": 0}
        pull = await begun(catalog, "busybox")
        told = await stream.until("pull", id=pull, state="PULLING")
        assert told.id is not None
        while True:
            overview = (await stream.until("overview")).data
            if {"PULLING": 1}.items() <= {
                s["state"]: s["pulls"] for s in overview["stages"]
            }.items():
                break
        body = {"job_id": "7", "images": [debian.image_id], "nodes": "n[1-3]", "uid": OWNER}
        assert (await two.a.bearer(admin, "/jobs", "POST", body)).status == 202
        while not (jobs := (await stream.until("jobs")).data["items"]):
            pass
        assert [(job["job_id"], job["node_count"]) for job in jobs] == [("7", 3)]
        await ended(catalog, "busybox")
        await stream.until("pull", id=pull, state="READY")
        gone = await stream.until("gone", id=pull)
        await two.a.bearer(admin, "/jobs/7", "DELETE")
        while (await stream.until("jobs")).data["items"]:
            pass
    # The queue goes on where it was, at either gateway; of the rest all is told again.
    async with following(two.a, "/live", token=admin, last=gone.id) as stream:
        kinds = {(await _next(stream.next)).kind for _ in range(2)}
        assert kinds == {"overview", "jobs"}
        assert "as you know it" in " ".join(stream.comments)
    async with following(two.a, "/live?system=nowhere", token=admin) as stream:
        assert stream.response.status == 404


async def test_what_is_private_is_in_nobody_elses_stream(two: Pair, catalog: Catalog) -> None:
    body = {"job_id": "8", "images": [image("debian").image_id], "nodes": "n1", "uid": OWNER}
    debian = image("debian")
    await catalog.images.change(debian.key, put(debian), soon())
    admin = two.token(0, Scope.ADMIN)
    assert (await two.a.bearer(admin, "/jobs", "POST", body)).status == 202
    for token, sees in ((two.token(STRANGER), 0), (None, 0), (two.token(OWNER), 1)):
        async with following(two.a, "/live", token=token) as stream:
            seen = [await _next(stream.next) for _ in range(2 if token is None else 3)]
            secret = await begun(catalog, f"secret{token is None}{sees}", owner=OWNER)
            fence = await begun(catalog, f"open{token is None}{sees}")
            # Two changes may be told as one: the fence is the later of them.
            while not _tells(seen, fence):
                seen.append(await _next(stream.next))
            while not _counted(seen[-1]):
                seen.append(await _next(stream.next))
            text = str([told.data for told in seen])
            assert ("secret" in text) == bool(sees)
            assert _tells(seen, secret) == bool(sees)
            jobs = [told.data["items"] for told in seen if told.kind == "jobs"]
            assert [len(items) for items in jobs[:1]] == ([] if token is None else [sees])
            overview = [told.data for told in seen if told.kind == "overview"][-1]
            assert overview["queues"] is None
            assert overview["jobs"] is None


async def test_a_stream_ends_with_what_proved_who_reads(two: Pair, catalog: Catalog) -> None:
    now = time.time()
    scopes = frozenset({Scope.READ})
    claims = Claims(id=new_id(), name="x", scopes=scopes, issued=now, expires=now + 2, uid=STRANGER)

    async def busy() -> None:
        number = 0
        while True:
            await begun(catalog, f"image{number}")
            number += 1
            await asyncio.sleep(0.05)

    changing = asyncio.create_task(busy())
    try:
        async with following(two.a, "/live", token=two.tokens.sign(claims)) as stream:
            while await stream.next() is not None:
                assert time.time() < now + 8, "it goes on behind the token's end"
            assert time.time() > now + 1
    finally:
        changing.cancel()


def _tells(seen: list[Told], pull: str) -> bool:
    bodies = [told.data for told in seen if told.kind == "pull"]
    items = [item for told in seen if told.kind == "snapshot" for item in told.data["items"]]
    return any(body["id"] == pull for body in (*bodies, *items))


def _counted(told: Told) -> bool:
    return told.kind == "overview" and any(s["pulls"] for s in told.data["stages"])


async def _next(asked: Callable[[], Awaitable[Told | None]]) -> Told:
    told = await asked()
    assert told is not None
    return told


def test_many_audiences_have_their_overviews_more_seldom() -> None:
    assert pace(1) == pace(100) == PACE_SECONDS
    assert pace(1000) == 10
