"""Two gateways over one catalog behave as one, whichever of them is asked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from services.gateway.auth.identity import Scope
from shared.catalog.interface import Catalog
from shared.states import State
from tests.support.catalogs import put, soon
from tests.support.conditions import eventually
from tests.support.gateways import Running, Said
from tests.support.lifecycle import image
from tests.support.two_gateways import Pair, following, pair

SOON = 2.0
"""What is promised is one second; the machine may be busy."""
OWNER, FRIEND, STRANGER = 4201, 4202, 4203


@pytest.fixture
async def two(tmp_path: Path, catalog_url: str) -> AsyncIterator[Pair]:
    async with pair(tmp_path, catalog_url) as running:
        yield running


def path_of(name: str) -> str:
    return f"/images/cluster/docker/{quote(f'docker.io/library/{name}:1', safe='')}"


async def asked(running: Running, token: str | None, path: str, **headers: str) -> Said:
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return await running.ask(path, **headers)


async def names(running: Running, token: str | None = None) -> list[str]:
    found = (await asked(running, token, "/images")).body["items"]
    return [each["reference"].rpartition("/")[2] for each in found]


async def test_requests_at_the_same_time_join_one_pull(two: Pair) -> None:
    wanted = {"reference": "debian:12"}
    said = await asyncio.gather(
        *(running.ask("/pulls", "POST", wanted) for running in [two.a, two.b] * 5)
    )
    assert {answer.status for answer in said} == {202}
    [pull] = {answer.body["id"] for answer in said}
    for running in (two.a, two.b):
        assert (await running.ask(f"/pulls/{pull}")).body["state"] == "INIT"

        async def queued(running: Running = running) -> bool:
            items = (await running.ask("/queue")).body["items"]
            return [each["id"] for each in items] == [pull]

        await eventually(queued, within=SOON)


async def test_a_follower_at_one_sees_what_the_other_did(two: Pair, catalog: Catalog) -> None:
    pull = (await two.a.ask("/pulls", "POST", {"reference": "debian:12"})).body["id"]
    async with following(two.b, f"/pulls/{pull}/events") as stream:
        first = await stream.next()
        assert first is not None
        assert (first.data["state"], first.id) == ("INIT", "1")
        await progress(catalog, "docker.io/library/debian:12", State.PULLING)
        told = await stream.until("pull", state="PULLING")
        assert told.id == "2"


async def progress(catalog: Catalog, reference: str, state: State) -> None:
    """As a third gateway would write it."""
    key = f"cluster/docker/{reference}"

    def step(record: Any) -> Any:
        return put(record.but(state=state))(record)

    await catalog.images.change(key, step, soon())


async def test_the_queue_is_followed_across_gateways(two: Pair, catalog: Catalog) -> None:
    async with following(two.b, "/queue/events") as stream:
        first = await stream.next()
        assert first is not None
        assert (first.kind, first.data["items"]) == ("snapshot", [])
        pull = (await two.a.ask("/pulls", "POST", {"reference": "debian:12"})).body["id"]
        await stream.until("pull", id=pull, state="INIT")
        reference = "docker.io/library/debian:12"
        await progress(catalog, reference, State.PULLING)
        await stream.until("pull", id=pull, state="PULLING")
        await progress(catalog, reference, State.READY)
        await stream.until("pull", id=pull, state="READY")
        gone = await stream.until("gone", id=pull)
        assert gone.id is not None
    # A client that knows all of it goes on from there, at either gateway.
    for running in (two.a, two.b):

        async def empty(running: Running = running) -> bool:
            return not (await running.ask("/queue")).body["items"]

        await eventually(empty, within=SOON)  # each hears of the end by itself
        async with following(running, "/queue/events", last=gone.id) as stream:
            await progress(catalog, reference, State.PULLING)
            told = await stream.next()
            assert told is not None
            assert told.kind == "pull", "no snapshot: nothing had changed"
            await progress(catalog, reference, State.READY)
            await stream.until("gone", id=pull)
    async with following(two.a, "/queue/events", last="something else") as stream:
        told = await stream.next()
        assert told is not None
        assert told.kind == "snapshot"


async def test_a_pull_is_resumed_by_its_last_event(two: Pair, catalog: Catalog) -> None:
    pull = (await two.a.ask("/pulls", "POST", {"reference": "debian:12"})).body["id"]
    async with following(two.b, f"/pulls/{pull}/events", last="1") as stream:
        await progress(catalog, "docker.io/library/debian:12", State.CONVERSION)
        told = await stream.next()
        assert told is not None
        assert (told.id, told.data["state"]) == ("2", "CONVERSION")
        await progress(catalog, "docker.io/library/debian:12", State.READY)
        assert (await stream.until("pull", state="READY")).id == "3"
        assert await stream.next() is None
    async with following(two.a, f"/pulls/{pull}/events", last="3") as stream:
        assert stream.response.status == 204


async def test_expiry_at_one_is_seen_at_the_other(two: Pair, catalog: Catalog) -> None:
    record = image("debian")
    await catalog.images.change(record.key, put(record), soon())
    for running in (two.a, two.b):

        async def there(running: Running = running) -> bool:
            return (await running.ask(path_of("debian"))).status == 200

        await eventually(there, within=SOON)
        assert await names(running) == ["debian:1"]
    admin = two.token(0, Scope.ADMIN)
    done = await two.a.bearer(admin, path_of("debian"), "DELETE")
    assert done.status == 202
    assert (await two.a.ask(path_of("debian"))).status == 404
    assert await names(two.a) == []

    async def gone() -> bool:
        return (await two.b.ask(path_of("debian"))).status == 404

    await eventually(gone, within=SOON)
    assert await names(two.b) == []


async def test_readers_named_at_one_are_let_in_at_the_other_and_out_again(
    two: Pair, catalog: Catalog
) -> None:
    record = image("secret", owner=OWNER)
    await catalog.images.change(record.key, put(record), soon())
    owner, friend, stranger = map(two.token, (OWNER, FRIEND, STRANGER))
    path = path_of("secret")

    async def status(running: Running, token: str | None) -> int:
        return (await asked(running, token, path)).status

    async def seen(running: Running, token: str, expected: int) -> None:
        async def so() -> bool:
            return await status(running, token) == expected

        await eventually(so, within=SOON)

    await seen(two.b, owner, 200)
    assert await status(two.b, friend) == 404
    named = await two.a.bearer(owner, f"{path}/readers", "PUT", {"uids": [FRIEND]})
    assert named.status == 200, named.body
    assert await status(two.a, friend) == 200
    await seen(two.b, friend, 200)
    assert await names(two.b, friend) == ["secret:1"]
    for running in (two.a, two.b):
        assert await status(running, stranger) == 404
        assert await status(running, None) == 404
        assert await names(running, stranger) == []
    known = await asked(two.b, friend, path)
    assert (await asked(two.b, friend, path, if_none_match=known.headers["ETag"])).status == 304
    await two.a.bearer(owner, f"{path}/readers", "PUT", {})
    await seen(two.b, friend, 404)
    again = await asked(two.b, friend, path, if_none_match=known.headers["ETag"])
    assert again.status == 404, "an ETag that one has kept opens nothing"
    assert await names(two.b, friend) == []


async def test_a_follower_who_loses_access_sees_no_more(two: Pair, catalog: Catalog) -> None:
    record = image("secret", owner=OWNER, state=State.PULLING, allowed_uids=(FRIEND,))
    await catalog.images.change(record.key, put(record), soon())
    friend = two.token(FRIEND)

    async def there() -> bool:
        return bool((await asked(two.b, friend, "/queue")).body["items"])

    await eventually(there, within=SOON)
    async with (
        following(two.b, f"/pulls/{record.pull_id}/events", token=friend) as pull,
        following(two.b, "/queue/events", token=friend) as queue,
        following(two.b, "/queue/events", token=two.token(STRANGER)) as other,
    ):
        assert (await pull.until("pull")).data["state"] == "PULLING"
        snapshot = await queue.until("snapshot")
        assert [each["id"] for each in snapshot.data["items"]] == [record.pull_id]
        assert (await other.until("snapshot")).data["items"] == []
        hidden = record.but(allowed_uids=())
        await catalog.images.change(record.key, put(hidden), soon())
        assert (await queue.until("gone", id=record.pull_id)).kind == "gone"
        assert await pull.next() is None
        # The stranger hears of none of it: the next thing told is about something public.
        await two.a.ask("/pulls", "POST", {"reference": "debian:12"})
        told = await other.next()
        assert told is not None
        assert told.data["reference"] == "docker.io/library/debian:12"
