"""The file where `shifterimg login` keeps credentials, in the form that the original has.

`~/.udiRoot/.cred` has a line `system:location=MUNGE:…` for each registry. What is encoded is
`user:password`, and MUNGE gives it back, however old it is, only to this user. So whoever changes
from one client to the other need not log in anew.
"""

import fcntl
import json
import os
import pwd
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cli.errors import CliError
from shared.munge import Munge, MungeError

MAX_SIZE: Final = 1 << 20


class LoginFileError(CliError):
    """The file with the credentials cannot be read or written."""

    code = "login_file"


class Logins:
    """One user's credentials for the registries, per system."""

    def __init__(self, file: Path, munge: Munge | None) -> None:
        self._file = file
        self._munge = munge

    def of(self, system: str) -> dict[str, str]:
        """`user:password` by location; what MUNGE no longer gives back is left out."""
        found: dict[str, str] = {}
        for where, credential in self._lines().items():
            named, _, location = where.partition(":")
            login = self._opened(credential) if named == system and location else None
            if login is not None:
                found[location] = login
        return found

    def store(self, system: str, location: str, login: str, munge: Munge) -> None:
        """Keep it beside the others; the file appears whole, and only this user reads it."""
        sealed = munge.encode(login.encode(), only_uid=os.getuid())
        try:
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            with self._alone():
                lines = {**self._lines(), f"{system}:{location}": sealed}
                self._replace("".join(f"{where}={kept}\n" for where, kept in lines.items()))
        except OSError as exc:
            raise LoginFileError(f"cannot write {self._file}: {exc.strerror}") from exc

    def _opened(self, credential: str) -> str | None:
        if self._munge is None:
            return None
        try:
            credentials = self._munge.decode(credential, stale=True)
        except (MungeError, UnicodeEncodeError):
            return None  # of another cluster, or from before its key was changed
        if credentials.uid != os.getuid():
            return None
        return credentials.payload.decode(errors="replace")

    def _lines(self) -> dict[str, str]:
        try:
            with self._file.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_SIZE)
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise LoginFileError(f"cannot read {self._file}: {exc.strerror}") from exc
        lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
        return {where.strip(): kept.strip() for where, equals, kept in lines if equals}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two logins at once must not lose one of them; the lock dies with the process."""
        directory = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _replace(self, text: str) -> None:
        # mkstemp makes it readable by its owner alone.
        descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=".cred-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def login_file() -> Path:
    """In the home that the user database has: what HOME says is not asked, as in the original."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".udiRoot" / ".cred"


def payload(logins: Mapping[str, str]) -> bytes:
    """What travels in a request's credential: nothing, where there are none."""
    return json.dumps({"authorized_locations": dict(logins)}).encode() if logins else b""
