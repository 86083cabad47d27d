"""Names and groups: from memory while they are fresh, and never from a directory that hangs."""

import asyncio
import grp
import os
import pwd
import threading

import pytest

from services.gateway.auth.users import KNOWN_SECONDS, MOST, UNKNOWN_SECONDS, User, Users, from_nss
from services.gateway.auth.workers import NoAnswerError, Workers
from tests.support.conditions import eventually


class Directory:
    """Counts what it is asked, and whose clock it is."""

    def __init__(self, *, known: bool = True) -> None:
        self.asked = 0
        self.now = 0.0
        self._known = known

    def look_up(self, uid: int) -> User:
        self.asked += 1
        return User(uid, f"user{uid}", frozenset({100}), known=self._known)

    def users(self) -> Users:
        return Users(self.look_up, lambda: self.now)


def test_this_machine_s_users_are_found() -> None:
    mine = from_nss(os.getuid())
    assert mine.name == pwd.getpwuid(os.getuid()).pw_name
    assert mine.gids == frozenset(os.getgrouplist(mine.name, pwd.getpwuid(mine.uid).pw_gid))
    assert mine.known


def test_supplementary_groups_count() -> None:
    """Debian and Red Hat both put some system user into some group beyond its own."""
    for group in grp.getgrall():
        for member in group.gr_mem:
            try:
                entry = pwd.getpwnam(member)
            except KeyError:
                continue
            assert group.gr_gid in from_nss(entry.pw_uid).gids
            return
    pytest.skip("no user of this machine has a supplementary group")


def test_a_stranger_is_called_by_its_number_and_has_no_groups() -> None:
    assert from_nss(3_999_999_999) == User(3_999_999_999, "3999999999", frozenset(), known=False)


async def test_the_group_that_came_along_counts_for_this_request_alone() -> None:
    users = Directory().users()
    assert (await users.find(7, 50)).gids == {100, 50}
    assert (await users.find(7, 51)).gids == {100, 51}
    assert (await users.find(7, None)).gids == {100}


@pytest.mark.parametrize(("known", "seconds"), [(True, KNOWN_SECONDS), (False, UNKNOWN_SECONDS)])
async def test_an_answer_is_kept_for_a_while(known: bool, seconds: float) -> None:
    directory = Directory(known=known)
    users = directory.users()
    for now, asked in ((0.0, 1), (seconds - 1, 1), (seconds + 1, 2), (seconds + 2, 2)):
        directory.now = now
        await users.find(7, 50)
        assert directory.asked == asked


async def test_who_is_asked_for_by_many_at_once_is_looked_up_once() -> None:
    directory = Directory()
    users = directory.users()
    found = await asyncio.gather(*(users.find(7, 50) for _ in range(2000)))
    assert {user.name for user in found} == {"user7"}
    assert directory.asked == 1


async def test_one_who_hangs_up_takes_nobody_s_answer_away() -> None:
    release, asked = threading.Event(), threading.Event()

    def look_up(uid: int) -> User:
        asked.set()
        assert release.wait(30)
        return User(uid, "alice", frozenset(), known=True)

    users = Users(look_up)
    first, second = (asyncio.create_task(users.find(7, 50)) for _ in range(2))
    await asyncio.to_thread(asked.wait, 30)
    first.cancel()
    release.set()
    assert (await second).name == "alice"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_not_everybody_is_kept() -> None:
    directory = Directory()
    users = directory.users()
    for uid in range(MOST + 10):
        await users.find(uid, 1)
    await users.find(MOST + 9, 1)
    assert directory.asked == MOST + 10
    await users.find(0, 1)
    assert directory.asked == MOST + 11
    assert len(users._kept) == MOST


async def test_a_directory_that_hangs_is_given_up_and_soon_not_even_asked() -> None:
    release = threading.Event()
    workers = Workers("the directory", threads=2, waiting=1, seconds=0.05)
    abandoned = threading.Event()
    try:
        calls = [workers.run(lambda: release.wait(30)) for _ in range(5)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        said = sorted(str(each) for each in ended)
        assert all(isinstance(each, NoAnswerError) for each in ended)
        assert [text.split(":")[0] for text in said] == [
            *["the directory did not answer within 0.05 s"] * 3,
            *["the directory is busy or hangs"] * 2,
        ]
        # The third never came to a thread, so its place is free, and those of the others are not.
        for _ in range(2):
            await eventually(lambda: workers._room == 1, within=5)
            with pytest.raises(NoAnswerError, match="did not answer"):
                await workers.run(abandoned.set)
        release.set()
        await eventually(lambda: workers._room == 3, within=5)
        assert await workers.run(lambda: "well again") == "well again"
        assert not abandoned.is_set()
    finally:
        release.set()
        workers.close()


async def test_an_error_of_the_call_is_the_caller_s() -> None:
    workers = Workers("the directory", threads=1, waiting=1, seconds=5)
    for _ in range(4):  # and its room is free again
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 / 0)
    workers.close()
