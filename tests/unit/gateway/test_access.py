"""Who may manage an image that is for all: who brought it, and nobody who merely pulls it again."""

from services.gateway.access import may_manage
from services.gateway.auth.identity import Principal, Scope
from services.gateway.transitions import Request
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
