"""A private MUNGE daemon, and credentials that it makes for whichever user a test wants."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.processes import ServerProcess

START_SECONDS = 15.0


class Munged(ServerProcess):
    """`with Munged() as munged:`. It has a key of its own, so that no real one is touched."""

    def __init__(self) -> None:
        if shutil.which("munged") is None:
            pytest.skip("needs a MUNGE daemon: install Debian's package munge")
        # Short: a socket's path may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="munged-"))
        self.directory.chmod(0o755)
        self.socket = self.directory / "munge.socket.2"

    def __enter__(self) -> Self:
        subprocess.run(
            ["mungekey", "--create", "--keyfile", self.directory / "key"],
            check=True,
            capture_output=True,
        )
        command: list[str | Path] = ["munged", "--foreground", "--force"]
        for option, name in (
            ("--key-file", "key"),
            ("--socket", "munge.socket.2"),
            ("--pid-file", "pid"),
            ("--log-file", "log"),
            ("--seed-file", "seed"),
        ):
            command += [option, self.directory / name]
        with (self.directory / "out").open("wb") as out:
            self._process = subprocess.Popen(command, stdin=-3, stdout=out, stderr=out)
        until = time.monotonic() + START_SECONDS
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self.directory / "out").read_text(errors="replace")
                raise RuntimeError(f"munged did not start:\n{said[-2000:]}")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def credential(self, payload: bytes = b"", uid: int | None = None) -> str:
        """One of this process, or as root of any user."""
        who: dict[str, Any] = {}
        if uid is not None:
            who = {"user": uid, "group": uid, "extra_groups": ()}
        made: subprocess.CompletedProcess[bytes] = subprocess.run(
            ["munge", "--socket", self.socket],
            input=payload,
            capture_output=True,
            check=True,
            **who,
        )
        return made.stdout.decode().strip()
