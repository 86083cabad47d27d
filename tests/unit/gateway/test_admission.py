"""Which references a site lets in, and which of them need no question to their registry."""

from datetime import timedelta

import pytest

from services.gateway.admission import Admission
from services.gateway.freshness import is_fresh
from services.gateway.transitions import Request, Transitions
from shared.errors import NotAdmittedError
from shared.image.recipe import PackOptions
from shared.settings.gateway import PullSettings
from shared.settings.lifecycle import AdmissionSettings
from shared.states import State
from tests.support.transitions import ASK, MACHINE, TARGET, later, ready, requested

DIGEST = "sha256:" + "d" * 64


@pytest.mark.parametrize(
    ("allow", "deny", "reference", "admitted"),
    [
        ((), (), "alpine", True),
        (("docker.io",), (), "alpine", True),
        (("docker.io/library/*",), (), "alpine:3", True),
        (("docker.io/library/*",), (), "docker.io/somebody/alpine", False),
        (("docker.io/library/*",), (), "quay.io/library/alpine", False),
        (("*.example.org:5000",), (), "r.example.org:5000/deep/in/there:1", True),
        (("*.example.org",), (), "r.example.org:5000/app", False),
        (("*",), ("docker.io/evil/*",), "evil/app", False),
        (("docker.io",), ("docker.io",), "alpine", False),
        ((), ("quay.io",), "alpine", True),
        ((), ("DOCKER.IO",), "alpine", False),
        ((), ("quay.io",), "Quay.IO/team/app:1", False),
    ],
)
def test_a_registry_is_let_in_or_not(
    allow: tuple[str, ...], deny: tuple[str, ...], reference: str, admitted: bool
) -> None:
    rules = AdmissionSettings(allow_registries=allow, deny_registries=deny, advice="call 12")
    if admitted:
        Admission(rules).check(reference)
        return
    with pytest.raises(NotAdmittedError, match=r"takes no images from .*; call 12") as caught:
        Admission(rules).check(reference)
    assert (caught.value.code, caught.value.status) == ("not_admitted", 403)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"command": ["scan"]}, "absolute path"),
        ({"command": ["/scan"], "url": "http://scan"}, "not both"),
        ({"url": "http://user@scan"}, "pattern"),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        AdmissionSettings.model_validate(settings)


def test_what_was_confirmed_of_late_is_not_asked_about_again() -> None:
    machine = Transitions(PullSettings(fresh_for=60), MACHINE.systems)
    record = ready()
    assert record.checked_at is not None
    assert machine.request(record, ASK, later(59)) is None
    asked = machine.request(record, ASK, later(60))
    assert asked is not None
    assert asked.record.state is State.INIT
    forced = machine.request(record, Request(TARGET, "ada", force=True), later(1))
    assert forced is not None


def test_a_digest_is_fresh_for_ever_unless_it_is_to_be_made_otherwise() -> None:
    record = ready().but(reference=f"docker.io/library/debian@{DIGEST}", checked_at=None)
    assert is_fresh(record, record, later(10**8), 0.0)
    other = record.but(pack=PackOptions(compression="gzip"))
    assert not is_fresh(other, record, later(1), 60.0)
    assert not is_fresh(record, None, later(1), 60.0)
    assert not is_fresh(record, record.but(state=State.FAILURE), later(1), 60.0)
    assert not is_fresh(requested(), requested(), later(1), 60.0)


def test_a_pin_survives_a_pull() -> None:
    record = ready().but(pinned=True, last_used=later(5))
    change = MACHINE.request(record, ASK, later(10) + timedelta(days=1))
    assert change is not None
    assert (change.record.pinned, change.record.last_used) == (True, later(5))
