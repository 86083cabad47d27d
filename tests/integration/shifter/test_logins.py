"""The file with credentials that both clients share, and what a real MUNGE makes of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.shifterimg.logins import LoginFileError, Logins, payload
from services.gateway.auth.identity import Login
from services.gateway.auth.locations import parse_locations
from shared.munge import Code, Munge, MungeError
from tests.support.conditions import eventually
from tests.support.munged import Munged

SECRET = "p:a\"s's\\:word=x"


@pytest.fixture(scope="module")
def munged() -> Iterator[Munged]:
    with Munged() as munged:
        yield munged


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".udiRoot" / ".cred"


def test_what_is_stored_is_read_and_travels(munged: Munged, file: Path) -> None:
    munge = Munge(munged.socket)
    logins = Logins(file, munge)
    assert logins.of("cluster") == {}
    logins.store("cluster", "default", "ada:old", munge)
    logins.store("cluster", "registry.example.org:5000", f"ada:{SECRET}", munge)
    logins.store("other", "default", "eve:x", munge)
    logins.store("cluster", "default", "ada:new", munge)
    found = Logins(file, munge).of("cluster")
    assert found == {"default": "ada:new", "registry.example.org:5000": f"ada:{SECRET}"}
    assert logins.of("cluster") == found, "the daemon has seen them, and gives them back"
    assert parse_locations(payload(found)) == {
        "default": Login("ada", "new"),
        "registry.example.org:5000": Login("ada", SECRET),
    }


def test_only_its_owner_can_read_it(munged: Munged, file: Path) -> None:
    munge = Munge(munged.socket)
    Logins(file, munge).store("cluster", "default", f"ada:{SECRET}", munge)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "ada" not in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == [".cred"]


def test_without_logins_nothing_travels(munged: Munged, file: Path) -> None:
    assert payload({}) == b""
    assert Logins(file, None).of("cluster") == {}


async def test_a_login_that_is_old_is_still_its_owners(munged: Munged, file: Path) -> None:
    munge = Munge(munged.socket)
    file.parent.mkdir()
    old = munge.encode(b"ada:x", ttl=1)
    file.write_text(f"cluster:default={old}\n")

    async def expired() -> bool:
        try:
            munge.decode(old)
        except MungeError as exc:
            return exc.reason == Code.EXPIRED
        return False

    await eventually(expired, within=20)
    assert Logins(file, munge).of("cluster") == {"default": "ada:x"}


def test_what_is_not_ours_is_left_out(munged: Munged, file: Path) -> None:
    munge = Munge(munged.socket)
    with Munged() as elsewhere:
        foreign = elsewhere.credential(b"eve:x")
    good = munge.encode(b"ada:x")
    file.parent.mkdir()
    file.write_text(
        f"cluster:foreign={foreign}\ncluster:broken=MUNGE:AAAA:\ncluster:none=\nnonsense\n"
        f"# cluster:off={good}\ncluster={good}\ncluster:\u00e4={good[:-9]}\u00e4:\n"
        f"cluster:good={good}\n"
    )
    assert Logins(file, munge).of("cluster") == {"good": "ada:x"}


@pytest.mark.root
def test_the_credential_of_another_user_is_left_out(munged: Munged, file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    file.parent.mkdir()
    file.write_text(f"cluster:default={munged.credential(b'eve:x', uid=4201)}\n")
    assert Logins(file, Munge(munged.socket)).of("cluster") == {}


def test_a_place_that_cannot_be_written_is_told(munged: Munged, tmp_path: Path) -> None:
    (tmp_path / ".udiRoot").write_text("a file")
    munge = Munge(munged.socket)
    with pytest.raises(LoginFileError, match="cannot write"):
        Logins(tmp_path / ".udiRoot" / ".cred", munge).store("cluster", "default", "a:b", munge)
