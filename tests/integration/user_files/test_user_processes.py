"""The process that opens files as a user: its rights, and its end."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from services.converter.user_files import as_user
from services.converter.user_files.as_user import AsUser, User, Users
from services.converter.user_files.errors import (
    FilesHangError,
    UserProcessDiedError,
)
from services.converter.user_files.messages import Open
from services.converter.user_files.process import Process
from shared.deadline import Deadline
from shared.errors import DrayError
from tests.support.conditions import eventually
from tests.support.private_site import ALICE, TEAM
from tests.support.user_files import made
from tests.support.users import (
    AS_NOBODY,
    NOBODY,
    ordinary_environment,
    ordinary_python,
)

pytestmark = pytest.mark.root


def process_of(files: AsUser) -> int:
    opening: Process = files._opening
    assert opening._process is not None
    return opening._process.pid


def test_it_has_the_users_rights_for_good(alices: AsUser) -> None:
    lines = Path(f"/proc/{process_of(alices)}/status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == [str(ALICE)] * 4
    assert status["Gid"] == [str(ALICE)] * 4
    assert status["Groups"] == [str(ALICE), str(TEAM)]
    assert status["NoNewPrivs"] == ["1"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name][0], 16) == 0, name
    # It belongs to root as far as others want to look into it: it cannot be traced.
    assert Path(f"/proc/{process_of(alices)}/mem").stat().st_uid == 0


def test_a_user_who_kills_it_gets_an_error_and_nothing_hangs(alices: AsUser, home: Path) -> None:
    os.kill(process_of(alices), signal.SIGKILL)
    with pytest.raises(UserProcessDiedError):
        alices.open_file(made(home / "own"))


async def test_it_ends_with_its_owner(home: Path) -> None:
    async with Users().files(User(ALICE, (ALICE,)), Deadline.after(30)) as files:
        pid = process_of(files)
        assert Path(f"/proc/{pid}").exists()
    await eventually(lambda: not Path(f"/proc/{pid}").exists(), within=10)
    with pytest.raises(UserProcessDiedError):
        files.open_file(home)


AS_ITS_OWN_USER = """
import asyncio, os, sys
from services.converter.user_files.as_user import User, Users
from services.converter.user_files.errors import NotAsThisUserError
from shared.deadline import Deadline

async def main():
    own = os.geteuid()
    async with Users().files(User(own, ()), Deadline.after(30)) as files:
        print(os.read(files.open_file(sys.argv[1]), 9).decode())
    try:
        async with Users().files(User(own + 1, ()), Deadline.after(30)):
            print("opened")
    except NotAsThisUserError as exc:
        print(exc.message)

asyncio.run(main())
"""


def test_who_is_not_root_reads_for_itself_alone(home: Path) -> None:
    mine = made(home / "mine", NOBODY)
    done = subprocess.run(
        [ordinary_python(), "-c", AS_ITS_OWN_USER, mine],
        env=ordinary_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **AS_NOBODY,
    )
    assert done.returncode == 0, done.stderr
    said, refused = done.stdout.splitlines()
    assert said == "hers"
    assert f"runs as uid {NOBODY}" in refused
    assert "CAP_SETUID and CAP_SETGID, or run it as root" in refused


AS_ANOTHER = """
import asyncio, os, sys
from pathlib import Path
from services.converter.user_files.as_user import User, Users
from shared.deadline import Deadline

async def main():
    async with Users().files(User(int(sys.argv[2]), ()), Deadline.after(30)) as files:
        print(os.read(files.open_file(sys.argv[1]), 9).decode())
        status = Path(f"/proc/{files._opening._process.pid}/status").read_text()
        print(*(line.split()[1] for line in status.splitlines() if line.startswith("Cap")))

asyncio.run(main())
"""


def test_two_capabilities_are_enough_and_do_not_stay(home: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv: install Debian's package util-linux")
    hers = made(home / "hers")
    done = subprocess.run(
        [
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
            "--inh-caps=-all,+setuid,+setgid", "--ambient-caps=-all,+setuid,+setgid",
            "--bounding-set=-all,+setuid,+setgid",
            ordinary_python(), "-c", AS_ANOTHER, hers, str(ALICE),
        ],
        env=ordinary_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, capabilities = done.stdout.splitlines()
    assert said == "hers"
    inherited, permitted, effective, _bounding, ambient = capabilities.split()
    assert {inherited, permitted, effective, ambient} == {"0" * 16}


def test_what_comes_along_with_no_answer_is_closed() -> None:
    """The process may be its user's by now, who has sent it something that breaks it."""
    process = Process()
    theirs = process._theirs
    try:
        for packet in (b'{"kind": "refused", "code": "no", "message": "no"}', b"nonsense"):
            socket.send_fds(theirs, [packet], [theirs.fileno()])
            before = len(list(Path("/proc/self/fd").iterdir()))
            with pytest.raises((DrayError, ValueError)):
                process.ask(Open(do="file", path="/x"), (), 5)
            assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        process.close()


def test_a_file_system_that_hangs_is_given_up(
    alices: AsUser, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(home / "own")
    monkeypatch.setattr(as_user, "OPEN_SECONDS", 0.5)
    os.kill(process_of(alices), signal.SIGSTOP)
    with pytest.raises(FilesHangError, match=r"0\.5 s"):
        alices.open_file(path)
    # What it says later is no answer to anything else.
    with pytest.raises(UserProcessDiedError):
        alices.open_file(path)
