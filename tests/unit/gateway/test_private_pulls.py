"""Owners' pulls as the state machine sees them: passwords, tickets, who may have the image."""

from datetime import timedelta

import pytest

from services.gateway.access import arriving_readers, listed, may_use, readers_of
from services.gateway.adoption import adopted
from services.gateway.auth.identity import Principal, Scope
from services.gateway.expiring import by_digest
from services.gateway.tickets import new_ticket, redeemed
from services.gateway.transitions import PullTarget, Request
from shared.catalog.interface import Change
from shared.catalog.records import ImageRecord
from shared.events import (
    ImageChanged,
    ImageConverted,
    ImageUnchanged,
    PlacementRequested,
    PullFailed,
    PullRequested,
    Readers,
    RefreshRequested,
)
from shared.states import State
from tests.support.recipes import small_recipe
from tests.support.transitions import ASK, MACHINE, NOW, event_for, later, placed, ready, taken

OWN = PullTarget("cluster", "docker", "docker.io/library/debian:12", owner=1000)
ASK_OWN = Request(OWN, "ada", uid=1000, login="sealed")
LEASE = 60.0


def asked() -> tuple[ImageRecord, str]:
    """An owner's pull, and its ticket."""
    change = MACHINE.request(None, ASK_OWN, NOW)
    return taken(change), ticket_of(change)


def ticket_of(change: Change[ImageRecord] | None) -> str:
    assert change is not None
    [event] = change.events
    assert isinstance(event, PullRequested | RefreshRequested)
    assert event.ticket is not None
    return event.ticket


def own_ready(*, authenticated: bool) -> ImageRecord:
    record, _ = asked()
    event = event_for(record, ImageConverted, recipe=small_recipe(), authenticated=authenticated)
    record = taken(MACHINE.converted(record, event, NOW))
    return taken(MACHINE.placed(record, placed(record), NOW))


def test_an_owners_pull_is_private_until_its_registry_says_otherwise() -> None:
    record, ticket = asked()
    assert (record.owner, record.private, record.key) == (1000, True, OWN.key)
    assert record.key != ASK.target.key
    assert ticket not in record.model_dump_json()
    assert own_ready(authenticated=True).private is True
    assert own_ready(authenticated=False).private is False


def test_the_sites_pull_has_neither_password_nor_ticket() -> None:
    change = MACHINE.request(None, ASK, NOW)
    assert change is not None
    [event] = change.events
    assert isinstance(event, PullRequested)
    assert (event.ticket, taken(change).login, taken(change).private) == (None, None, False)
    # Whatever a converter says of credentials: the site's are the site's.
    event_ = event_for(taken(change), ImageConverted, recipe=small_recipe(), authenticated=True)
    assert taken(MACHINE.converted(taken(change), event_, NOW)).private is False


def test_a_placement_says_who_may_use_the_image() -> None:
    record, _ = asked()
    named = Request(OWN, "ada", readers=Readers(uids=(7, 5), gids=(9,)))
    record = taken(MACHINE.request(record, named, NOW))  # joined, with readers
    event = event_for(record, ImageConverted, recipe=small_recipe(), authenticated=True)
    change = MACHINE.converted(record, event, NOW)
    assert change is not None
    [placement] = change.events
    assert isinstance(placement, PlacementRequested)
    assert placement.readers == Readers(uids=(1000, 5, 7), gids=(9,))


@pytest.mark.parametrize("authenticated", [True, False])
def test_the_password_leaves_with_the_write_that_ends_the_pull(authenticated: bool) -> None:
    record = own_ready(authenticated=authenticated)
    assert (record.login, record.ticket) == (None, None)
    failing, _ = asked()
    event = event_for(failing, PullFailed, code="x", message="no")
    failed = taken(MACHINE.failed(failing, event, NOW))
    assert (failed.state, failed.login, failed.ticket) == (State.FAILURE, None, None)


def test_a_ticket_is_good_once_and_says_that_a_worker_has_begun() -> None:
    record, ticket = asked()
    used = taken(redeemed(record, ticket, NOW, LEASE))
    assert used.begun
    assert used.due_at == NOW + timedelta(seconds=LEASE)
    assert redeemed(used, ticket, NOW, LEASE) is None
    assert redeemed(record, new_ticket()[0], NOW, LEASE) is None
    assert redeemed(None, ticket, NOW, LEASE) is None


def test_a_worker_that_died_with_the_password_is_followed_by_another_with_a_new_ticket() -> None:
    record, ticket = asked()
    record = taken(redeemed(record, ticket, NOW, LEASE))
    change = MACHINE.gone_quiet(record, later(61))
    again, second = taken(change), ticket_of(change)
    assert (again.attempt, again.login) == (2, "sealed")
    assert redeemed(again, ticket, NOW, LEASE) is None
    assert redeemed(again, second, NOW, LEASE) is not None


def test_a_request_that_is_issued_again_has_another_ticket() -> None:
    record, ticket = asked()
    change = MACHINE.gone_quiet(record, later(61))
    assert taken(change).attempt == 1
    assert redeemed(taken(change), ticket, NOW, LEASE) is None
    assert redeemed(taken(change), ticket_of(change), NOW, LEASE) is not None


def test_a_retry_after_a_pause_still_has_the_password() -> None:
    record, _ = asked()
    event = event_for(record, PullFailed, code="busy", message="later", retryable=True)
    waiting = taken(MACHINE.failed(record, event, NOW))
    assert waiting.login == "sealed"
    change = MACHINE.gone_quiet(waiting, later(5))
    assert redeemed(taken(change), ticket_of(change), NOW, LEASE) is not None


def test_a_check_has_a_ticket_and_the_pull_that_it_becomes_another() -> None:
    record = own_ready(authenticated=True)
    change = MACHINE.request(record, ASK_OWN, later(3600))
    checking, first = taken(change), ticket_of(change)
    assert checking.private
    event = event_for(checking, ImageChanged, reference_digest="sha256:" + "9" * 64)
    pulling = MACHINE.changed(checking, event, later(3601))
    assert redeemed(taken(pulling), first, NOW, LEASE) is None
    assert redeemed(taken(pulling), ticket_of(pulling), NOW, LEASE) is not None


@pytest.mark.parametrize("authenticated", [True, False])
def test_a_check_tells_anew_who_may_have_the_image(authenticated: bool) -> None:
    record = own_ready(authenticated=not authenticated)
    checking = taken(MACHINE.request(record, ASK_OWN, later(3600)))
    assert record.current is not None
    event = event_for(
        checking,
        ImageUnchanged,
        reference_digest=record.current.reference_digest,
        authenticated=authenticated,
    )
    assert taken(MACHINE.unchanged(checking, event, later(3601))).private is authenticated


def test_what_everybody_may_have_becomes_the_sites_once() -> None:
    mine = own_ready(authenticated=False)
    public = taken(adopted(None, mine, NOW))
    assert (public.owner, public.private, public.key) == (None, False, ASK.target.key)
    assert (public.state, public.current, public.image_id) == (
        State.READY,
        mine.current,
        mine.image_id,
    )
    assert (public.allowed_uids, public.login) == ((), None)
    assert adopted(public, mine, NOW) is None
    assert adopted(None, own_ready(authenticated=True), NOW) is None


def test_the_site_keeps_what_is_newer_and_pulls_that_are_under_way() -> None:
    mine = own_ready(authenticated=False)
    assert mine.current is not None
    public = ready()
    assert public.current is not None
    newer = public.current.model_copy(update={"image_id": "e" * 64, "ready_at": later(5)})
    assert adopted(public.but(current=newer, image_id="e" * 64), mine, NOW) is None
    older = newer.model_copy(update={"ready_at": later(-5)})
    known = public.but(current=older, image_id="e" * 64)
    assert taken(adopted(known, mine, NOW)).current == mine.current
    assert adopted(known.but(state=State.PULLING), mine, NOW) is None


def published() -> tuple[ImageRecord, PlacementRequested]:
    """A private image's tag has moved to one that the registry gives to everybody."""
    record = taken(MACHINE.request(own_ready(authenticated=True), ASK_OWN, later(3600)))
    recipe = small_recipe("d")
    event = event_for(record, ImageConverted, recipe=recipe, authenticated=False)
    change = MACHINE.converted(record, event, later(3601))
    assert change is not None
    [placement] = change.events
    assert isinstance(placement, PlacementRequested)
    return change.record, placement


def test_what_a_reference_stands_for_stays_private_until_what_is_public_takes_its_place() -> None:
    moving, placement = published()
    assert moving.image_id == "a" * 64
    assert not may_use(user(1001), moving)
    # The new one is for everybody all the same, at each of its placements, and on its own.
    again = MACHINE.gone_quiet(moving.but(begun=True), later(10_000))
    assert again is not None
    [repeated] = again.events
    assert isinstance(repeated, PlacementRequested)
    assert (placement.readers, repeated.readers) == (None, None)
    assert arriving_readers(moving) is None
    moved = taken(MACHINE.placed(moving, placed(moving, "d"), later(3602)))
    assert (moved.image_id, moved.private, moved.arrives_public) == ("d" * 64, False, False)
    # And the old one, under its digest, is still its owner's.
    before = by_digest(moving)
    assert before is not None
    assert readers_of(before) == Readers(uids=(1000,))
    assert not may_use(user(1001), before)


def test_a_private_image_stays_private_when_its_public_successor_cannot_be_placed() -> None:
    moving, _ = published()
    event = event_for(moving, PullFailed, code="no_space", message="full", retryable=False)
    failed = taken(MACHINE.failed(moving, event, later(3602)))
    back = taken(MACHINE.gone_quiet(failed, later(200_000)))
    for record in (failed, back):
        assert record.image_id == "a" * 64
        assert not may_use(user(1001), record)
        assert readers_of(record) == Readers(uids=(1000,))
        assert adopted(None, record, later(3603)) is None


def user(uid: int | None, *gids: int, admin: bool = False) -> Principal:
    scopes = frozenset(Scope) if admin else frozenset({Scope.READ, Scope.PULL})
    return Principal("somebody", scopes, "munge", uid, frozenset(gids))


@pytest.mark.parametrize(
    ("principal", "allowed"),
    [
        (user(1000), True),
        (user(1001), False),
        (user(None), False),
        (user(1002), True),
        (user(1003, 50), True),
        (user(1003, 51), False),
        (user(50), False),
        (user(1003, 1002), False),
        (user(None, admin=True), True),
    ],
)
def test_a_private_image_is_its_owners_and_its_readers(principal: Principal, allowed: bool) -> None:
    record = own_ready(authenticated=True).but(allowed_uids=(1002,), allowed_gids=(50,))
    assert may_use(principal, record) is allowed
    assert listed(principal, record) is allowed
    assert readers_of(record) == Readers(uids=(1000, 1002), gids=(50,))


def test_an_owners_public_image_is_usable_by_all_and_listed_once() -> None:
    record = own_ready(authenticated=False)
    assert may_use(user(None), record)
    assert not listed(user(1000), record)
    assert listed(user(None), ready())
    assert readers_of(record) is None
