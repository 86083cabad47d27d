"""Who waits for a pull over Shifter's wire is told how it ended, whichever gateway is asked."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.auth.compose import site_secret
from services.gateway.auth.identity import Login, Principal, Scope
from services.gateway.feed import ChangeFeed
from services.gateway.lifecycle import Lifecycle
from services.gateway.private import private_images
from services.gateway.pulls import Pulls
from services.gateway.shifter.asking import TOLD_FOR, WirePulls
from services.gateway.transitions import PullTarget, Transitions
from shared.bus.connect import connect_bus
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import PullFailed, Readers
from shared.models import utcnow
from shared.states import State
from tests.support.catalogs import opened
from tests.support.transitions import TARGET, event_for, ready

ADA, BOB = (
    Principal(name, frozenset({Scope.READ, Scope.PULL}), "munge", uid)
    for name, uid in (("ada", 1000), ("bob", 1001))
)
OWNER = Principal("eve", ADA.scopes, "munge", 1002, logins={"docker.io": Login("eve", "secret")})
PUBLIC = Principal("anonymous", ADA.scopes, "nobody")


class Gateway:
    """One of several over the same catalog, without a bus."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self._catalog = catalog
        feed = ChangeFeed(catalog)
        private = private_images(settings, catalog, site_secret(settings))
        self._pulls = Pulls(
            catalog,
            feed,
            Transitions(settings.pull, settings.systems),
            logins=private.logins,
            adoption=private.adoption,
            lifecycle=Lifecycle(settings, catalog, connect_bus(settings, "test"), feed),
            timeout=5.0,
        )
        self._asking = WirePulls(catalog, self._pulls, 5.0)

    async def ask(
        self, who: Principal, readers: Readers | None = None, target: PullTarget = TARGET
    ) -> ImageRecord:
        return await self._asking.ask(who, target, readers)

    async def fail(self, record: ImageRecord) -> None:
        event = event_for(record, PullFailed, code="denied", message="no", retryable=False)
        await self._pulls.on_failed(event)

    async def put(self, record: ImageRecord) -> None:
        await self._catalog.images.change(record.key, lambda _: Change(record), Deadline.after(5))


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    systems = {"cluster": {"image_dir": str(tmp_path / "images")}}
    settings = Settings.model_validate(
        {"data_dir": str(tmp_path), "systems": systems, "pull": {"fresh_for": 0}}
    )
    async with opened(settings.catalog_url) as one, opened(settings.catalog_url) as other:
        yield Gateway(one, settings), Gateway(other, settings)


async def test_a_failure_is_told_once(gateways: tuple[Gateway, Gateway]) -> None:
    one, other = gateways
    started = await one.ask(ADA)
    await one.fail(started)
    told = await other.ask(ADA)
    assert (told.state, told.failure and told.failure.message) == (State.FAILURE, "no")
    again = await one.ask(ADA)
    assert (again.state, again.attempt) == (State.INIT, started.attempt + 1)


async def test_a_failure_in_the_middle_of_a_question_is_told_once_too(
    gateways: tuple[Gateway, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = gateways
    started = await one.ask(ADA)
    joining = one._pulls.request

    async def joins_too_late(*args: Any, **kwargs: Any) -> ImageRecord:
        joined = await joining(*args, **kwargs)
        await other.fail(started)
        return joined

    monkeypatch.setattr(one._pulls, "request", joins_too_late)
    assert (await one.ask(ADA)).state is State.FAILURE
    assert (await other.ask(ADA)).state is State.INIT


async def test_two_who_poll_in_turn_are_both_told(gateways: tuple[Gateway, Gateway]) -> None:
    """However fast pulls fail: none of their questions may take the other's answer away."""
    one, other = gateways
    await one.fail(await one.ask(ADA))
    await other.fail(await other.ask(BOB))
    assert (await one.ask(ADA)).state is State.FAILURE
    assert (await other.ask(BOB)).state is State.FAILURE
    assert (await other.ask(BOB)).state is State.INIT


async def test_whoever_joins_is_told_too(gateways: tuple[Gateway, Gateway]) -> None:
    one, other = gateways
    started = await one.ask(ADA)
    joined = await other.ask(PUBLIC)
    assert (joined.pull_id, joined.awaited_by) == (started.pull_id, ("1000", "anonymous"))
    assert (await one.ask(ADA)).version == joined.version, "polling changes nothing"
    await one.fail(started)
    assert (await one.ask(PUBLIC)).state is State.FAILURE
    assert (await one.ask(ADA)).state is State.FAILURE


async def test_a_whole_course_that_waits_is_told(gateways: tuple[Gateway, Gateway]) -> None:
    one, other = gateways
    course = [Principal(f"u{uid}", ADA.scopes, "munge", uid) for uid in range(2000, 2100)]
    for student in course:
        started = await one.ask(student)
    await one.fail(started)
    assert {(await other.ask(student)).state for student in course} == {State.FAILURE}


async def test_what_failed_for_others_long_ago_is_tried_at_once(
    gateways: tuple[Gateway, Gateway],
) -> None:
    one, other = gateways
    await one.fail(await one.ask(ADA))
    assert (await other.ask(BOB)).state is State.INIT


async def test_ready_is_told_to_whoever_waits_and_asked_for_anew_by_others(
    gateways: tuple[Gateway, Gateway],
) -> None:
    """Or a client would never end where asking the registry takes longer than its pause."""
    one, other = gateways
    now = utcnow()
    await one.put(ready().but(last_pull=now, version=0, awaited_by=("1000",)))
    assert (await other.ask(ADA)).state is State.READY
    assert (await one.ask(ADA)).state is State.INIT, "the second time, it asks"


async def test_whoever_comes_back_much_later_does_not_wait_any_more(
    gateways: tuple[Gateway, Gateway],
) -> None:
    one, _ = gateways
    long_ago = utcnow() - 2 * TOLD_FOR
    await one.put(ready().but(last_pull=long_ago, version=0, awaited_by=("1000",)))
    assert (await one.ask(ADA)).state is State.INIT


async def test_an_owner_polls_what_is_their_own(gateways: tuple[Gateway, Gateway]) -> None:
    one, other = gateways
    started = await one.ask(OWNER, Readers(uids=(1000,)))
    assert (started.owner, started.allowed_uids) == (1002, (1000,))
    await one.fail(started)
    assert (await other.ask(ADA)).owner is None
    told = await other.ask(OWNER, Readers(uids=(1000,)))
    assert (told.key, told.state) == (started.key, State.FAILURE)


async def test_other_readers_are_named_even_by_a_poll(gateways: tuple[Gateway, Gateway]) -> None:
    one, _ = gateways
    started = await one.ask(OWNER)
    await one.put(
        ready().but(
            key=started.key, owner=1002, private=True, pull_id=started.pull_id, last_pull=utcnow(),
            version=started.version, awaited_by=started.awaited_by,
        )
    )  # fmt: skip
    again = await one.ask(OWNER, Readers(gids=(50,)))
    assert again.allowed_gids == (50,)
