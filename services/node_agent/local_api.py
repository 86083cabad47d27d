"""The agent's local socket: how a prolog, a rank or a user has an image mounted on this node.

It needs no bus. The kernel tells who calls (SO_PEERCRED); everybody may have images mounted, and
a job is released by whoever made it, by root or by the agent's own user.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import TypeAdapter, ValidationError

from services.node_agent.cache.cache import Cache
from services.node_agent.callers import identify
from services.node_agent.errors import CacheOffError, ForbiddenError, InsideRefusedError
from services.node_agent.inside.furnishing import Furnishing, Wants
from services.node_agent.inside.site_view import SiteInsides
from services.node_agent.job import SITE
from services.node_agent.jobs import Jobs
from services.node_agent.preparing import Preparing
from services.node_agent.programs import Programs
from services.node_agent.readers import User
from shared.api import (
    AgentStatus,
    InsideRequest,
    InsideView,
    MountRequest,
    PinRequest,
    PrepareRequest,
)
from shared.deadline import Deadline
from shared.errors import ConfigError, InvalidInputError
from shared.events import NodeImage
from shared.http.answers import answer, error_middleware, invalid_input, read_body
from shared.http.connections import Connections
from shared.http.peers import peer, peer_groups
from shared.http.tracing import request_span
from shared.models import ImageId, JobId

MAX_PATH_BYTES: Final = 107
_MAX_BODY: Final = 64 << 10
_STOP_SECONDS: Final = 2.0
_BACKLOG: Final = 512
_JOB_ID: Final[TypeAdapter[str]] = TypeAdapter(JobId)
_IMAGE_ID: Final[TypeAdapter[str]] = TypeAdapter(ImageId)


def socket_path(agent_dir: Path) -> Path:
    path = agent_dir / "agent.sock"
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise ConfigError(
            f"agent.run_dir: the socket's path {path} has {length} bytes, and Linux allows "
            f"{MAX_PATH_BYTES}: choose a shorter agent.run_dir or data_dir"
        )
    return path


class LocalApi:
    """HTTP on a UNIX socket."""

    def __init__(
        self,
        path: Path,
        connections: Connections,
        *,
        jobs: Jobs,
        preparing: Preparing,
        programs: Programs,
        furnishing: Furnishing | None,
        site: SiteInsides,
        cache: Cache | None,
        status: Callable[[], AgentStatus],
    ) -> None:
        self._path = path
        self._jobs = jobs
        self._preparing = preparing
        self._programs = programs
        self._furnishing = furnishing
        self._site = site
        self._cache = cache
        self._status = status
        app = web.Application(
            middlewares=[_only_request, error_middleware, self._complete],
            client_max_size=_MAX_BODY,
        )
        app.add_routes(
            [
                web.post("/v1/mounts", self._mount),
                web.post("/v1/jobs/{job_id}/prepare", self._prepare),
                web.post("/v1/jobs/{job_id}/insides", self._furnish),
                web.delete("/v1/jobs/{job_id}", self._release),
                web.get("/v1/images/{image_id}", self._program),
                web.put("/v1/cache/{image_id}", self._pin),
                web.delete("/v1/cache/{image_id}", self._unpin),
                web.get("/v1/site", self._get_site),
                web.get("/v1/status", self._get_status),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS)
        self._connections = connections
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        await self._runner.setup()
        assert self._runner.server is not None
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                self._connections.guarded(self._runner.server), self._path, backlog=_BACKLOG
            )
            self._path.chmod(0o666)
        except OSError as exc:
            await self._runner.cleanup()
            raise ConfigError(f"cannot listen on {self._path}: {exc.strerror}") from exc

    async def stop(self) -> None:
        # A socket that nobody answers would stand in the way of a living agent's.
        self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    @web.middleware
    async def _complete(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        await request.read()
        self._connections.arrived(request.transport)
        with request_span(request, known=True):
            return await handler(request)

    async def _mount(self, request: web.Request) -> web.Response:
        wanted = await read_body(request, MountRequest)
        pid, user = _peer(request)
        caller = identify(pid) if wanted.until_caller_exits else None
        return answer(await self._jobs.mount(wanted, user, caller))

    async def _prepare(self, request: web.Request) -> web.Response:
        _require_site(request)
        job_id = _named(request, "job_id", _JOB_ID)
        wanted = await read_body(request, PrepareRequest)
        return answer(await self._preparing.prepare(job_id, wanted))

    async def _furnish(self, request: web.Request) -> web.Response:
        job_id = _named(request, "job_id", _JOB_ID)
        wanted = await read_body(request, InsideRequest)
        _, peer = _peer(request)
        if self._furnishing is None:
            raise InsideRefusedError(
                "this node's agent does not run as root, and puts no images together: leave out "
                "what needs that, such as --module"
            )
        user = peer or User(0, frozenset({0}))
        devices = self._jobs.devices_of(job_id, wanted.image_id, peer)
        wants = Wants(wanted.volumes, wanted.modules, devices)
        path = await self._furnishing.furnish(
            job_id, wanted.image_id, user, wants, Deadline.after(wanted.wait)
        )
        return answer(InsideView(image_id=wanted.image_id, path=str(path)))

    async def _release(self, request: web.Request) -> web.Response:
        job_id = _named(request, "job_id", _JOB_ID)
        _, user = _peer(request)
        await self._jobs.release(job_id, SITE if user is SITE else user.uid)
        return web.Response(status=204)

    async def _program(self, request: web.Request) -> web.Response:
        image_id = _named(request, "image_id", _IMAGE_ID)
        _, user = _peer(request)
        return answer(await self._programs.of(image_id, user))

    async def _pin(self, request: web.Request) -> web.Response:
        _require_site(request)
        image_id = _named(request, "image_id", _IMAGE_ID)
        wanted = await read_body(request, PinRequest)
        image = NodeImage(image_id=image_id, content_digest=wanted.content_digest, size=wanted.size)
        await self._required_cache().pin(image, Deadline.after(wanted.wait))
        return web.Response(status=204)

    async def _unpin(self, request: web.Request) -> web.Response:
        _require_site(request)
        await self._required_cache().unpin(_named(request, "image_id", _IMAGE_ID))
        return web.Response(status=204)

    def _required_cache(self) -> Cache:
        if self._cache is None:
            raise CacheOffError("this node has no cache of images: see agent.cache.dir")
        return self._cache

    async def _get_site(self, _: web.Request) -> web.Response:
        return answer(await self._site.view())

    async def _get_status(self, request: web.Request) -> web.Response:
        status = self._status()
        _, user = _peer(request)
        if user is SITE:
            return answer(status)
        known = {view.image_id for view in status.mounts}.union(*status.jobs.values())
        seen = await self._jobs.readable(known, user)
        mounts = tuple(view for view in status.mounts if view.image_id in seen)
        jobs = {job: tuple(i for i in held if i in seen) for job, held in status.jobs.items()}
        cache = status.cache and status.cache.model_copy(update={"copies": ()})
        seen_by_user = {"mounts": mounts, "jobs": jobs, "cache": cache}
        return answer(status.model_copy(update=seen_by_user))


def _require_site(request: web.Request) -> None:
    _, user = _peer(request)
    if user is not SITE:
        raise ForbiddenError("only root, or the agent's own user, may ask for this")


def _named(request: web.Request, name: str, kind: TypeAdapter[str]) -> str:
    try:
        return kind.validate_python(request.match_info[name])
    except ValidationError as exc:
        raise invalid_input(exc) from exc


def _peer(request: web.Request) -> tuple[int, User | None]:
    """Process and user at the other end; SITE as the user who may do everything here."""
    connection: socket.socket | None = request.get_extra_info("socket")
    if connection is None:  # it has hung up already
        raise InvalidInputError("the caller is gone")
    caller = peer(connection)
    if caller.uid in (0, os.geteuid()):
        return caller.pid, SITE
    return caller.pid, User(caller.uid, peer_groups(connection))


@web.middleware
async def _only_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One request for each connection: none is kept open to wait for another."""
    response = await handler(request)
    response.force_close()
    return response
