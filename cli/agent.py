"""The node agent's local socket: have an image mounted here, and give it back."""

import http.client
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cli import http as wire
from cli.answers import Image, reading
from cli.errors import UnreachableError
from cli.http import Answer, Json

SITE_SOCKETS: Final = (Path("/run/dray/agent.sock"), Path("/var/lib/dray/agent/agent.sock"))
MARGIN: Final = 10.0
"""The agent gives up before we do, and says why."""


def usual_sockets() -> tuple[Path, ...]:
    """Where an agent listens if nobody says otherwise: the node's, then one's own `dray up`."""
    return (*SITE_SOCKETS, own_data_dir() / "agent/agent.sock")


def own_data_dir() -> Path:
    """Where `dray up` of an ordinary user keeps its data."""
    base = os.environ.get("XDG_DATA_HOME", "")
    # The specification says to ignore a relative path.
    return (Path(base) if base.startswith("/") else Path.home() / ".local/share") / "dray"


class Agent:
    """The agent of this node."""

    def __init__(self, named: Path | None) -> None:
        candidates = (named,) if named else usual_sockets()
        self._socket = next((path for path in candidates if path.exists()), candidates[0])

    def mount(self, job_id: str, image: Image, wait: float) -> str:
        """Where the image is mounted for this job; waits until it is."""
        body = {
            "job_id": job_id,
            "image_id": image.id,
            "sha256": image.sha256,
            "size": image.size,
            "wait": wait,
        }
        answer = self._call("POST", "/v1/mounts", body, wait + MARGIN)
        with reading("a mount"):
            return str(answer.body["path"])

    def release(self, job_id: str) -> None:
        """The job has ended here. Safe to repeat."""
        self._call("DELETE", f"/v1/jobs/{quote(job_id, safe='')}", None, MARGIN)

    def status(self) -> Json:
        """What the agent says about itself, its mounts and the jobs that hold them."""
        return self._call("GET", "/v1/status", None, MARGIN).body

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> Answer:
        try:
            return wire.call(self._connect, method, path, body, timeout)
        except (OSError, http.client.HTTPException) as exc:
            raise UnreachableError(self._missing(exc)) from exc

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        return wire.UnixConnection(str(self._socket), timeout)

    def _missing(self, exc: Exception) -> str:
        if isinstance(exc, PermissionError):
            return f"you may not talk to the node's agent at {self._socket}"
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        return (
            f"no node agent answers at {self._socket} ({why or type(exc).__name__})\n"
            "An agent mounts the images: one runs in `dray up`, and on a compute node as "
            "`python -m services.node_agent`.\nName its socket with --socket or DRAY_SOCKET."
        )
