"""The node agent's local socket: have an image mounted here, for as long as this process lives."""

import errno
import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cli import defaults
from cli import http as wire
from cli.answers import Image, reading
from cli.errors import UnreachableError
from cli.http import Answer, Json, UnixConnection

MARGIN: Final = 10.0
"""The agent gives up before we do, and says why."""
_TRY_NEXT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.EACCES, None)
"""No socket, one that nobody serves, one that is not for us, a path too long to be one."""


class Agent:
    """The agent of this node: at the socket that is named, or the first usual one that answers."""

    def __init__(self, named: Path | None) -> None:
        self._candidates = (named,) if named else defaults.usual_sockets()

    def mount(self, job_id: str, image: Image, wait: float) -> str:
        """Where the image is mounted until this process, or what it becomes, has ended."""
        body = {
            "job_id": job_id,
            "image_id": image.id,
            "content_digest": image.content_digest,
            "size": image.size,
            "wait": wait,
            "until_caller_exits": True,
        }
        answer = self._call("POST", "/v1/mounts", body, wait + MARGIN)
        with reading("a mount"):
            return str(answer.body["path"])

    def system(self) -> str:
        """The cluster that this node belongs to."""
        with reading("the agent's status"):
            return str(self.status()["system"])

    def status(self) -> Json:
        """What the agent says about itself, its mounts and the jobs that hold them."""
        return self._call("GET", "/v1/status", None, MARGIN).body

    def socket(self, timeout: float) -> Path:
        """The socket at which an agent listens."""
        connection, path = self._connected(timeout)
        connection.close()
        return path

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> Answer:
        try:
            return wire.call(lambda t: self._connected(t)[0], method, path, body, timeout)
        except (OSError, http.client.HTTPException) as exc:
            raise UnreachableError(_explained([(self._candidates[0], exc)])) from exc

    def _connected(self, timeout: float) -> tuple[UnixConnection, Path]:
        failures: list[tuple[Path, Exception]] = []
        for path in self._candidates:
            connection = UnixConnection(str(path), timeout)
            try:
                connection.connect()
            except OSError as exc:
                connection.close()
                failures.append((path, exc))
                if exc.errno not in _TRY_NEXT:
                    break
            else:
                self._candidates = (path,)
                return connection, path
        raise UnreachableError(_explained(failures))


def _explained(failures: list[tuple[Path, Exception]]) -> str:
    tried = [f"{path} ({_why(exc)})" for path, exc in failures]
    advice = (
        "An agent mounts the images: one runs in `dray up`, and on a compute node as "
        "`python -m services.node_agent`.\nName its socket with --socket or DRAY_SOCKET."
    )
    return f"no node agent answers at {', '.join(tried)}\n{advice}"


def _why(exc: Exception) -> str:
    if isinstance(exc, PermissionError):
        return "you may not talk to it"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
