"""Shifter's own client and ours, each run as it would be on a login node.

Both have their settings, MUNGE's socket and the user's home at fixed places. So each command gets
a mount namespace in which a test's own files stand there, which takes root; the machine's stay as
they are.
"""

import asyncio
import os
import pty
import shutil
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.munged import Munged
from tests.support.users import let_everybody_in, ordinary_environment, ordinary_python

SECONDS: Final = 60.0
VARIABLE: Final = "DRAY_TEST_SHIFTERIMG"
CONF: Final = "/run/shifter/udiRoot.conf"
HOW_TO_BUILD: Final = (
    f"{VARIABLE} does not name Shifter's own client. In the folder src of NERSC/shifter, with "
    "Debian's libcurl4-openssl-dev, libjson-c-dev and libmunge-dev: "
    f"gcc -I. -DCONFIG_FILE='\"{CONF}\"' -DLIBEXECDIR='\"/nonexistent\"' -o shifterimg "
    "shifterimg.c UdiRootConfig.c utility.c shifter_mem.c ImageData.c VolumeMap.c PathList.c "
    "MountList.c -lcurl -ljson-c -lmunge"
)
OURS: Final = "from cli.shifterimg.main import main; main()"
_ENTER: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mkdir /run/munge /run/shifter
mount --bind "$MUNGE" /run/munge
cp "$HERE/udiRoot.conf" /run/shifter/
mount --bind "$HERE/passwd" /etc/passwd
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups -- "$@"
"""
# What the original checks although it needs none of it.
_CONF: Final = """
udiMount=/var/udiMount
loopMount=/var/udiLoopMount
imagePath=/images
udiRootPath=/opt/shifter
etcPath=/etc
modprobePath=/bin/true
insmodPath=/bin/true
cpPath=/bin/cp
mvPath=/bin/mv
chmodPath=/bin/chmod
ddPath=/bin/dd
rootfsType=tmpfs
gatewayTimeout=20
defaultImageType=docker
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command came to."""

    code: int
    out: str
    err: str


class Client:
    """One of both programs, for any user of a site."""

    def __init__(self, name: str, directory: Path, munged: Munged, url: str, system: str) -> None:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv: install Debian's package util-linux")
        self.name = name
        self._command = _command(name)
        self._directory = directory
        self._munged = munged
        directory.mkdir()
        let_everybody_in(directory)
        conf = f"{_CONF}imageGateway={url}\nsystem={system}\n"
        (directory / "udiRoot.conf").write_text(conf)
        self._users: dict[int, str] = {}

    def user(self, uid: int, name: str) -> None:
        """Somebody with a home of their own."""
        self._users[uid] = name
        home = self.home(uid)
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        lines = (
            f"{each}:x:{number}:{number}::{self.home(number)}:/bin/sh\n"
            for number, each in self._users.items()
        )
        (self._directory / "passwd").write_text("".join(lines))

    def twin(self) -> "Client":
        """The other program, for the same users."""
        other = copy(self)
        other.name = "original" if self.name == "ours" else "ours"
        other._command = _command(other.name)
        return other

    def home(self, uid: int) -> Path:
        return self._directory / str(uid)

    async def run(self, *arguments: str, uid: int = 0, typed: Sequence[str] = ()) -> Ran:
        """`typed` is what somebody types at the terminal, a line for each prompt."""
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", _ENTER, "sh"),
            *("setsid", "--ctty", "--wait", *self._command, *arguments),
            stdin=slave,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **ordinary_environment(),
                "USER_ID": str(uid),
                "HERE": str(self._directory),
                "MUNGE": str(self._munged.directory),
                "DRAY_UDIROOT_CONF": CONF,
            },
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(SECONDS):
                for line in typed:
                    # Not before: what is typed ahead of a password is thrown away.
                    await process.stderr.readuntil(b": ")
                    os.write(master, f"{line}\n".encode())
                out, err = await process.communicate()
        finally:
            os.close(slave)
            os.close(master)  # ends whoever is still at that terminal
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


def _command(name: str) -> list[str]:
    if name == "ours":
        return [ordinary_python(), "-c", OURS]
    binary = os.environ.get(VARIABLE)
    if not binary:
        pytest.skip(HOW_TO_BUILD)
    return [binary]
