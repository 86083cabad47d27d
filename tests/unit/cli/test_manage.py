"""What owners do: take away, pin, share; and how people are named."""

import grp
import json
import os
import pwd

import pytest

from cli import manage, people
from cli.errors import EXIT_FAILED, RefusedError, UsageError
from cli.gateway import Gateway, PullWish
from cli.manage import Readers, Which
from shared.api import ExpiredView, ReadersView, ReferencesView, ReferenceView
from shared.states import State
from tests.support.scripted_gateway import Script, problem, says
from tests.support.views import NOW, REFERENCE

IMAGE = "/api/v1/images/_/docker/alpine%3A3"
Served = tuple[str, Script]

pytestmark = pytest.mark.usefixtures("served")


def _reference(**changes: object) -> ReferencesView:
    values = {
        "system": "daint",
        "type": "docker",
        "reference": REFERENCE,
        "owner": None,
        "state": State.READY,
        "pinned": False,
        "last_used": NOW,
        "expires_at": None,
    }
    return ReferencesView(items=(ReferenceView.model_validate(values | changes),))


def test_removing_says_what_is_gone_and_what_happens_to_jobs(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(f"DELETE {IMAGE}", says(_reference(state=State.EXPIRING), 202))
    assert manage.remove(Gateway(url), Which(["alpine:3"]), json=False) == 0
    told = capsys.readouterr().out
    assert f"{REFERENCE} is gone from daint." in told
    assert "Jobs that have it mounted keep it" in told


def test_one_that_is_refused_keeps_none_of_the_others(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    owner = f"?owner={os.getuid()}"
    path = "DELETE /api/v1/images/daint"
    missing = problem(404, "not_found", "there is no such image\x1b[2J")
    script.on(f"{path}/docker/alpine%3A3{owner}", missing)
    image_id = "a" * 64
    script.on(f"{path}/id/{image_id}{owner}", says(_reference(), 202))
    which = Which(["alpine:3", image_id], "daint", str(os.getuid()))
    assert manage.remove(Gateway(url), which, json=True) == EXIT_FAILED
    shown = capsys.readouterr()
    assert [each["reference"] for each in json.loads(shown.out)["items"]] == [REFERENCE]
    assert "[not_found]" in shown.err
    assert "\x1b" not in shown.err


@pytest.mark.parametrize(
    ("pinned", "changes", "said"),
    [
        (True, {"pinned": True}, "stays on daint until somebody unpins it."),
        (False, {"expires_at": NOW}, "expires 2026-05-01 12:00 UTC unless it is used before."),
        (False, {}, "is not pinned; nothing on daint expires by itself."),
    ],
)
def test_pinning_says_until_when_it_stays(
    served: Served,
    capsys: pytest.CaptureFixture[str],
    pinned: bool,
    changes: dict[str, object],
    said: str,
) -> None:
    url, script = served
    script.on(f"{'PUT' if pinned else 'DELETE'} {IMAGE}/pin", says(_reference(**changes)))
    assert manage.pin(Gateway(url), Which(["alpine:3"]), pinned=pinned, json=False) == 0
    assert capsys.readouterr().out == f"{REFERENCE} {said}\n"


def test_expiring_what_nobody_uses_says_how_many(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    view = ExpiredView(seen=1200, expired=1, held=3, items=_reference().items)
    script.on("POST /api/v1/admin/expire", says(view))
    assert manage.expire_unused(Gateway(url), "daint", json=False) == 0
    assert script.asked[-1][1] == {"system": "daint"}
    assert capsys.readouterr().out.endswith("1 of 1,200 images expired; 3 stay for jobs.\n")


def test_sharing_names_exactly_those_who_may_from_now_on(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    me, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    view = ReadersView(owner=7, private=True, uids=(os.getuid(), 4_000_000), gids=(os.getgid(),))
    script.on(f"PUT {IMAGE}/readers", says(view))
    readers = Readers((me, "4000000"), (group,))
    assert manage.share(Gateway(url), "alpine:3", None, readers, json=False) == 0
    assert script.asked[-1][1] == {"uids": [os.getuid(), 4_000_000], "gids": [os.getgid()]}
    assert capsys.readouterr().out == f"users       {me}, 4000000\ngroups      {group}\n"


def test_sharing_without_names_only_asks_and_a_public_image_is_said_to_be(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    view = ReadersView(owner=7, private=False, uids=(), gids=(), warning="everybody may use it")
    script.on(f"GET {IMAGE}/readers", says(view))
    assert manage.share(Gateway(url), "alpine:3", None, Readers(), json=False) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("alpine:3 is public.\n")
    assert shown.err == "dray: everybody may use it\n"
    script.on(f"PUT {IMAGE}/readers", says(view))
    assert manage.share(Gateway(url), "alpine:3", None, Readers(nobody=True), json=True) == 0
    assert script.asked[-1] == (f"PUT {IMAGE}/readers", {"uids": [], "gids": []})


def test_nobody_and_somebody_at_once_is_no_wish(served: Served) -> None:
    url, script = served
    with pytest.raises(UsageError, match="nobody"):
        manage.share(Gateway(url), "x", None, Readers(users=("root",), nobody=True), json=False)
    assert script.asked == []


@pytest.mark.parametrize("name", ["no-such-name", "", "4294967296", "-1", "\0", "9" * 5000])
def test_who_is_not_known_here_is_refused_before_asking(name: str) -> None:
    with pytest.raises(UsageError, match=r"^--user .*"):
        people.user_ids([name])
    with pytest.raises(UsageError, match=r"^--group .*"):
        people.group_ids([name])


def test_ids_without_a_name_stay_numbers() -> None:
    assert people.users([4_294_967_290]) == "4294967290"
    assert people.groups([]) == "nobody"


def test_a_pull_names_its_readers_only_where_the_user_did(served: Served) -> None:
    url, script = served
    script.on("POST /api/v1/pulls", problem(403, "not_allowed", "no"))
    for wish in (PullWish("alpine:3", uids=(1,), gids=()), PullWish("alpine:3")):
        with pytest.raises(RefusedError):
            Gateway(url).request_pull(wish)
    bodies = [body for _, body in script.asked]
    assert bodies == [
        {"reference": "alpine:3", "allowed_uids": [1], "allowed_gids": []},
        {"reference": "alpine:3"},
    ]
