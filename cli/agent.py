"""The node agent's local socket: have an image mounted here, for as long as this process lives."""

import errno
import http.client
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cli import defaults
from cli import http as wire
from cli.answers import NodeProgram, Program, reading
from cli.errors import RefusedError, UnreachableError
from cli.http import Answer, Json, UnixConnection
from shared.inside.site import Site

MARGIN: Final = 10.0
"""The agent gives up before we do, and says why."""
_TRY_NEXT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.EACCES, None)
"""No socket, one that nobody serves, one that is not for us, a path too long to be one."""


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """An image whose bytes are certain: what jobs carry along, so that no gateway is needed."""

    image_id: str
    content_digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Mount:
    """Where an image is."""

    image_id: str
    path: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of a job's images; if they are not ready, why, in words for its user."""

    ready: bool
    message: str
    mounts: tuple[Mount, ...]
    images: tuple[PinnedImage, ...] = ()
    insides: tuple[Mount, ...] = ()
    """Where each image is put together, to be entered."""


@dataclass(frozen=True, slots=True)
class Whose:
    """A job's user, and what they want in its images."""

    uid: int | None = None
    gid: int | None = None
    volumes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict)


class Agent:
    """The agent of this node: at the socket that is named, or the first usual one that answers."""

    def __init__(self, named: Path | None) -> None:
        self._candidates = (named,) if named else defaults.usual_sockets()

    def mount(self, job_id: str, image: Program, wait: float) -> str:
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

    def program(self, image: PinnedImage, reference: str) -> NodeProgram:
        """What this image runs."""
        body = self._call("GET", f"/v1/images/{image.image_id}", None, MARGIN).body
        with reading("an image of this node"):
            return NodeProgram(
                reference=reference,
                id=image.image_id,
                content_digest=image.content_digest,
                size=image.size,
                env=tuple(body["env"]),
                entrypoint=tuple(body["entrypoint"]),
                cmd=tuple(body["cmd"]),
                workdir=body["workdir"],
            )

    def prepare(
        self, job_id: str, images: Sequence[PinnedImage], whose: Whose, wait: float
    ) -> Prepared:
        """Have a job's images mounted within `wait`; without images, those announced for it."""
        body = {
            "images": [asdict(image) for image in images],
            "uid": whose.uid,
            "gid": whose.gid,
            "volumes": whose.volumes,
            "modules": whose.modules,
            "devices": whose.devices,
            "wait": wait,
        }
        path = f"/v1/jobs/{quote(job_id, safe='')}/prepare"
        answer = self._call("POST", path, body, wait + MARGIN)
        with reading("the agent's answer"):
            return Prepared(
                ready=answer.body["state"] == "ready",
                message=str(answer.body["message"]),
                mounts=tuple(
                    Mount(str(mount["image_id"]), str(mount["path"]))
                    for mount in answer.body["mounts"]
                ),
                insides=tuple(
                    Mount(str(inside["image_id"]), str(inside["path"]))
                    for inside in answer.body.get("insides", ())
                ),
                images=tuple(
                    PinnedImage(image["image_id"], image["content_digest"], image["size"])
                    for image in answer.body.get("images", ())
                ),
            )

    def inside(
        self,
        job_id: str,
        image_id: str,
        volumes: Sequence[str],
        modules: Sequence[str],
        wait: float,
    ) -> Path:
        """Have an image that this user's job has put together in another way than the job's own."""
        body = {
            "image_id": image_id,
            "volumes": list(volumes),
            "modules": list(modules),
            "wait": wait,
        }
        path = f"/v1/jobs/{quote(job_id, safe='')}/insides"
        answer = self._call("POST", path, body, wait + MARGIN)
        with reading("the agent's answer"):
            return Path(answer.body["path"])

    def site(self) -> Site:
        """What the site has in images; nothing, where an agent is too old to say."""
        try:
            body = self._call("GET", "/v1/site", None, MARGIN).body
        except RefusedError as exc:
            if exc.answered != HTTPStatus.NOT_FOUND:
                raise
            return Site()
        with reading("what this site has in images"):
            return Site(
                tuple(map(str, body["site_fs"])),
                str(body["tmp_size"]),
                tuple(map(str, body["changes"])),
                tuple(map(str, body["modules"])),
            )

    def release(self, job_id: str, wait: float) -> None:
        """End a job: when this returns, nothing of it is mounted. Safe to repeat."""
        self._call("DELETE", f"/v1/jobs/{quote(job_id, safe='')}", None, wait)

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
