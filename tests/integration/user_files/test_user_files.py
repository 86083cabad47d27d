"""Files are opened with the rights of who imports them, and with no others."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from services.converter.sources.errors import ArchiveInvalidError
from services.converter.user_files.as_user import AsUser, User, Users
from services.converter.user_files.errors import (
    NotAsThisUserError,
    PlaceNotAllowedError,
)
from shared.deadline import Deadline
from tests.support.imports import owned
from tests.support.private_site import ALICE, BOB, TEAM
from tests.support.user_files import content, made

pytestmark = pytest.mark.root


def test_what_the_user_may_read_is_opened(alices: AsUser, home: Path) -> None:
    assert content(alices.open_file(made(home / "own"))) == b"hers"
    shared = made(home / "shared", BOB, 0o640)
    os.chown(shared, BOB, TEAM)
    assert content(alices.open_file(shared)) == b"hers"
    link = home / "link"
    link.symlink_to("own")
    assert content(alices.open_file(link)) == b"hers"


@pytest.mark.parametrize("uid", [0, BOB])
def test_what_the_user_may_not_read_is_not(alices: AsUser, home: Path, uid: int) -> None:
    secret = made(home / "secret", uid)
    link = home / "link"
    link.symlink_to(secret)
    hidden = home / "hidden"
    hidden.mkdir(mode=0o700)
    made(hidden / "readable", uid, 0o644)
    for path in (secret, link, hidden / "readable"):
        with pytest.raises(PermissionError):
            alices.open_file(path)
    with pytest.raises(PermissionError):
        alices.open_directory(hidden)


def test_files_of_the_site_are_not_read(anywhere: AsUser) -> None:
    for path in ("/etc/shadow", "/proc/1/environ", "/proc/self/environ", "/proc/self/mem"):
        with pytest.raises(OSError, match="Permission denied"):
            anywhere.open_file(path)


def test_the_process_shows_nothing_of_its_own(anywhere: AsUser) -> None:
    for name in ("maps", "cmdline", "status", "mountinfo"):
        with pytest.raises((PlaceNotAllowedError, PermissionError)):
            anywhere.open_file(f"/proc/self/{name}")
    for number in range(64):
        with pytest.raises((OSError, ArchiveInvalidError)):
            anywhere.open_file(f"/proc/self/fd/{number}")
    with pytest.raises((PlaceNotAllowedError, PermissionError)):
        anywhere.open_directory("/proc/self/fd")


def test_what_could_block_or_act_is_refused(alices: AsUser, home: Path) -> None:
    fifo = home / "fifo"
    os.mkfifo(fifo)
    owned(fifo, ALICE)
    for path in (fifo, home, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(ArchiveInvalidError):
            alices.open_file(path)


def test_only_places_that_the_site_allows(alices: AsUser, home: Path) -> None:
    out = home / "out"
    out.symlink_to("/etc/hostname")
    for path in ("/etc/hostname", str(home / ".." / ".." / ".." / "etc/hostname"), out):
        with pytest.raises((PlaceNotAllowedError, FileNotFoundError)):
            alices.open_file(path)
    with pytest.raises(PlaceNotAllowedError, match=str(home)):
        alices.open_directory("/etc")


def test_a_place_of_that_name_in_a_namespace_of_the_users_own_is_not_meant(
    alices: AsUser, home: Path
) -> None:
    script = f"mount --bind /etc {home} && echo ready && exec sleep 60"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, user=ALICE, group=ALICE
    ) as elsewhere:
        try:
            assert elsewhere.stdout is not None
            if elsewhere.stdout.readline() != b"ready\n":
                pytest.skip("no user namespaces on this machine")
            root = f"/proc/{elsewhere.pid}/root"
            with pytest.raises(PlaceNotAllowedError):
                alices.open_file(f"{root}{home}/hostname")
            with pytest.raises(PlaceNotAllowedError):
                alices.open_directory(f"{root}{home}")
        finally:
            elsewhere.kill()


def test_below_a_directory_no_link_is_followed(alices: AsUser, home: Path) -> None:
    inner = home / "layout" / "blobs"
    inner.mkdir(parents=True)
    made(inner / "one")
    made(inner / "others", BOB)
    (inner / "link").symlink_to("one")
    (home / "layout" / "way").symlink_to("blobs")
    root = alices.open_directory(home / "layout")
    assert content(alices.open_file("blobs/one", within=root)) == b"hers"
    for name in ("blobs/link", "way/one"):
        with pytest.raises(ArchiveInvalidError):
            alices.open_file(name, within=root)
    for name in ("../layout/blobs/one", "/etc/hostname", "", "blobs//one", "blobs/absent"):
        with pytest.raises(FileNotFoundError):
            alices.open_file(name, within=root)
    # Root could read it, and this process is root.
    with pytest.raises(PermissionError):
        alices.open_file("blobs/others", within=root)
    os.close(root)


async def test_a_link_that_changes_all_the_time_never_opens_what_is_not_hers(
    alices: AsUser, home: Path
) -> None:
    made(home / "own")
    made(home / "secret", 0, text=b"root's")
    link = home / "link"
    link.symlink_to("own")
    swapping = True

    def swap() -> None:
        at = 0
        while swapping:
            at += 1
            other = home / "other"
            other.symlink_to("secret" if at % 2 else "own")
            other.rename(link)

    def read() -> set[bytes]:
        seen = set()
        for _ in range(500):
            try:
                seen.add(content(alices.open_file(link)))
            except PermissionError:
                seen.add(b"refused")
        return seen

    swapper = asyncio.create_task(asyncio.to_thread(swap))
    try:
        seen = await asyncio.to_thread(read)
    finally:
        swapping = False
        await swapper
    assert seen <= {b"hers", b"refused"}
    assert b"hers" in seen


@pytest.mark.parametrize(("uid", "says"), [(0, "root"), (999, "import_min_uid")])
async def test_root_and_services_are_nobody_to_import_for(uid: int, says: str) -> None:
    with pytest.raises(NotAsThisUserError, match=says):
        async with Users().files(User(uid, (uid,)), Deadline.after(30)):
            pass


async def test_where_people_have_low_uids_they_can_import() -> None:
    async with Users(min_uid=500).files(User(999, (999,)), Deadline.after(30)) as files:
        assert content(files.open_file("/etc/hostname"))


async def test_a_user_without_groups_has_none_of_ours(home: Path) -> None:
    ours = made(home / "ours", 0, 0o640)
    async with Users().files(User(ALICE, ()), Deadline.after(30)) as files:
        with pytest.raises(PermissionError):
            files.open_file(ours)
