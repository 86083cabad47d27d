"""The agent's local socket: how a prolog, a rank or a user has an image mounted on this node.

It needs no bus. The kernel tells who calls (SO_PEERCRED); everybody may have images mounted, and
a job is released by whoever made it, by root or by the agent's own user.
"""

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from services.node_agent.jobs import SITE, Jobs
from shared.api import AgentStatus, MountRequest
from shared.errors import ConfigError, DrayError, InvalidInputError
from shared.logging import get_logger
from shared.models import JobId

log = get_logger(__name__)

MAX_PATH_BYTES: Final = 107
_MAX_BODY: Final = 16 << 10
_STOP_SECONDS: Final = 2.0
_CREDENTIALS: Final = struct.Struct("3i")
_JOB_ID: Final[TypeAdapter[str]] = TypeAdapter(JobId)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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

    def __init__(self, path: Path, jobs: Jobs, status: Callable[[], AgentStatus]) -> None:
        self._path = path
        self._jobs = jobs
        self._status = status
        app = web.Application(middlewares=[_errors_as_json], client_max_size=_MAX_BODY)
        app.add_routes(
            [
                web.post("/v1/mounts", self._mount),
                web.delete("/v1/jobs/{job_id}", self._release),
                web.get("/v1/status", self._get_status),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS)

    async def start(self) -> None:
        await self._runner.setup()
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
            self._path.chmod(0o666)
        except OSError as exc:
            await self._runner.cleanup()
            raise ConfigError(f"cannot listen on {self._path}: {exc.strerror}") from exc

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _mount(self, request: web.Request) -> web.Response:
        try:
            wanted = MountRequest.model_validate_json(await request.read())
        except ValidationError as exc:
            raise InvalidInputError(_explain(exc)) from exc
        view = await self._jobs.mount(wanted, _caller(request))
        return _json(view.model_dump_json())

    async def _release(self, request: web.Request) -> web.Response:
        try:
            job_id = _JOB_ID.validate_python(request.match_info["job_id"])
        except ValidationError as exc:
            raise InvalidInputError(_explain(exc)) from exc
        await self._jobs.release(job_id, _caller(request))
        return web.Response(status=204)

    async def _get_status(self, _request: web.Request) -> web.Response:
        return _json(self._status().model_dump_json())


def _caller(request: web.Request) -> int | None:
    """The user id of the process at the other end; SITE for who may do everything here."""
    peer: socket.socket | None = request.get_extra_info("socket")
    if peer is None:  # it has hung up already
        raise InvalidInputError("the caller is gone")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return SITE if uid in (0, os.geteuid()) else int(uid)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except DrayError as exc:
        return _problem(exc.status, exc.code, exc.message)
    except web.HTTPException as exc:
        return _problem(exc.status, "invalid_input", exc.reason)
    except Exception:
        log.exception("request_failed", path=request.path)
        return _problem(500, "internal_error", "the agent failed; its log says why")


def _problem(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")


def _explain(exc: ValidationError) -> str:
    problem = exc.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
