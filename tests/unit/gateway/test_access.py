"""Who may manage an image that is for all: who brought it, and nobody who merely pulls it again."""

import pytest

from services.gateway.access import may_manage, may_see, may_use
from services.gateway.auth.identity import Principal, Scope
from services.gateway.transitions import Request
from shared.catalog.records import Failure
from tests.support.transitions import MACHINE, NOW, TARGET, later, placed, ready, taken

USER = frozenset((Scope.READ, Scope.PULL))
ADA = Principal("ada", USER, via="munge", uid=1000)
EVE = Principal("eve", USER, via="munge", uid=2000)
NOBODY = Principal("anonymous", USER, via="nobody")
ROOT = Principal("root", USER | {Scope.ADMIN}, via="socket", uid=0)


def test_who_brought_an_image_for_all_may_take_it_away() -> None:
    record = taken(MACHINE.request(None, Request(TARGET, "ada", uid=1000), NOW))
    assert [may_manage(each, record) for each in (ADA, EVE, NOBODY, ROOT)] == [
        True,
        False,
        False,
        True,
    ]


def test_pulling_it_again_makes_it_nobody_elses() -> None:
    brought = ready().but(brought_by=1000)
    again = taken(MACHINE.request(brought, Request(TARGET, "eve", uid=2000), later(60)))
    assert may_manage(ADA, again)
    assert not may_manage(EVE, again)


def test_what_the_public_brought_is_the_sites() -> None:
    again = taken(MACHINE.request(ready(), Request(TARGET, "eve", uid=2000), later(60)))
    assert not may_manage(EVE, again)


def test_a_pull_that_never_came_to_an_end_leaves_nothing_to_own() -> None:
    record = taken(MACHINE.request(None, Request(TARGET, "ada", uid=1000), NOW))
    expired = record.but(state="EXPIRED")
    again = taken(MACHINE.request(expired, Request(TARGET, "eve", uid=2000), later(60)))
    assert may_manage(EVE, again)
    assert placed(again).attempt == 2


@pytest.mark.parametrize("code", ["registry_access_refused", "image_not_found"])
def test_what_a_registry_refused_is_shown_to_who_asked_and_to_admins(code: str) -> None:
    usable = ready().but(failure=Failure(code=code, message="x"), requested_uid=1000)
    nothing = usable.but(current=None, state="FAILURE")
    everybody = (ADA, EVE, NOBODY, ROOT)
    assert [may_see(each, nothing) for each in everybody] == [True, False, False, True]
    assert all(may_see(each, usable) for each in everybody), "an older one is there for all"
    assert all(may_use(each, nothing) for each in everybody), "who knows the pull's id may follow"
    by_nobody = nothing.but(requested_uid=None)
    assert [may_see(each, by_nobody) for each in everybody] == [False, False, False, True]


def test_other_failures_are_everybodys_news() -> None:
    record = ready().but(
        current=None,
        state="FAILURE",
        failure=Failure(code="registry_unreachable", message="x"),
        requested_uid=1000,
    )
    assert may_see(EVE, record)
    assert may_see(NOBODY, record)
