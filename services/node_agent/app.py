"""Wires the agent: mounter, jobs, local socket, and the bus behind them."""

import asyncio
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from aiohttp import web

from services.node_agent.cache import measuring
from services.node_agent.cache.cache import Cache
from services.node_agent.cache.errors import CacheUnusableError
from services.node_agent.cache.shelf import Shelf
from services.node_agent.entries import Entries
from services.node_agent.holds import Holds
from services.node_agent.inside.furnishing import Furnishing
from services.node_agent.inside.insides import Insides
from services.node_agent.inside.pins import Pins
from services.node_agent.inside.site_view import SiteInsides
from services.node_agent.jobs import Jobs
from services.node_agent.local_api import LocalApi, socket_path
from services.node_agent.mounter import Mounter
from services.node_agent.mounts import choose_mounter
from services.node_agent.preparing import Preparing
from services.node_agent.programs import Programs
from services.node_agent.staging import Stager
from services.node_agent.state import JobFiles
from services.node_agent.threads import DaemonThreads
from services.node_agent.uplink import Uplink
from shared.api import AgentStatus
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import ConfigError, DeadlineExceededError
from shared.http.connections import Connections, room_per_user
from shared.http.health import health_routes
from shared.http.server import HttpServer
from shared.inside.enter import users_may_have_namespaces
from shared.logging import get_logger

log = get_logger(__name__)

CACHE_SECONDS: Final = 15.0
"""For a look at all copies that are there, on a disk that may hang."""
REQUEST_SECONDS: Final = 5.0
"""From the connection to the whole request: on one machine far more than anybody needs."""


def build(settings: Settings, bus: Bus, *, serve_health: bool = True) -> "NodeAgent":
    """The agent of this node. With `serve_health` it has an HTTP server of its own."""
    if settings.agent.system not in settings.systems:
        raise ConfigError(f"agent.system: there is no system '{settings.agent.system}' in systems")
    return NodeAgent(settings, bus, socket_path(settings.agent_dir), serve_health=serve_health)


class NodeAgent:
    """The agent as a service."""

    name = "agent"

    def __init__(self, settings: Settings, bus: Bus, path: Path, *, serve_health: bool) -> None:
        self._settings = settings
        self._bus = bus
        self._socket_path = path
        self._serve_health = serve_health
        self._lock: BinaryIO | None = None
        self._files: JobFiles | None = None
        self._holds: Holds | None = None
        self._cache: Cache | None = None
        self._no_cache: str | None = None
        self._jobs: Jobs | None = None
        self._entries = Entries()
        self._uplink: Uplink | None = None
        self._local: LocalApi | None = None
        self._http: HttpServer | None = None

    async def start(self, deadline: Deadline) -> None:
        self._lock = await asyncio.to_thread(_alone, self._settings.agent_dir)
        mounter = await asyncio.to_thread(choose_mounter, self._settings)
        stager = await asyncio.to_thread(Stager, self._settings, mounter)
        self._files = files = JobFiles(self._settings.agent_dir / "jobs")
        self._cache = cache = await self._opened_cache(deadline)
        self._holds = holds = Holds(stager, cache)
        insides = await asyncio.to_thread(open_insides, self._settings, self._entries)
        furnishing = None if insides is None else Furnishing(holds, insides, self._settings.inside)
        self._jobs = jobs = Jobs(
            holds,
            files,
            system=self._settings.agent.system,
            stage_timeout=self._settings.agent.stage_timeout,
            on_end=insides.end if insides else None,
        )
        self._entries.open(jobs.is_the_sites)
        measuring.MOUNTS.set_function(lambda: len(holds.views))
        measuring.JOBS.set_function(lambda: len(jobs.view))
        await jobs.adopt()
        if insides is not None:
            await insides.adopt(jobs.view)
        local = LocalApi(
            self._socket_path,
            Connections(
                room_per_user(), free=frozenset({0, os.geteuid()}), seconds=REQUEST_SECONDS
            ),
            jobs=jobs,
            preparing=Preparing(jobs, furnishing),
            furnishing=furnishing,
            site=SiteInsides(self._settings.inside),
            programs=Programs(holds),
            cache=cache,
            status=lambda: self._status(jobs, holds, mounter),
        )
        await local.start()
        self._local = local
        log.info("serving", socket=str(self._socket_path))
        if self._serve_health:
            app = web.Application()
            app.add_routes(health_routes(self.checks))
            http = HttpServer(app, self._settings.agent.listen)
            await http.start()
            self._http = http
        self._uplink = Uplink(
            self._settings,
            self._bus,
            jobs=jobs,
            holds=holds,
            mounter=mounter,
            cache=cache,
            entries=self._entries,
        )
        await self._uplink.start(deadline)

    async def stop(self, deadline: Deadline) -> None:
        """What jobs hold stays mounted: they go on, and the next agent takes them over."""
        if self._http is not None:
            await self._http.stop()
        if self._local is not None:
            await self._local.stop()
        if self._uplink is not None:
            await self._uplink.stop(deadline)
        if self._jobs is not None:
            await self._jobs.stop(deadline)
        self._entries.close()
        if self._holds is not None:
            await self._holds.close(deadline)
        if self._cache is not None:
            await self._cache.close()
        if self._files is not None:
            await asyncio.to_thread(self._files.close)
        if self._lock is not None:
            self._lock.close()

    async def checks(self) -> Mapping[str, str | None]:
        problem = "not connected; jobs are staged by the local socket only"
        found = {"bus": None if self._bus.connected else problem}
        if self._settings.agent.cache.dir is not None:
            found["cache"] = self._no_cache
        return found

    async def _opened_cache(self, deadline: Deadline) -> Cache | None:
        """A node without its cache is slower; a node without its agent has no images at all."""
        directory = self._settings.agent.cache.dir
        if directory is None:
            return None
        try:
            async with deadline.sooner(CACHE_SECONDS).bound(f"opening {directory}"):
                return await DaemonThreads(1, "cache").run(open_cache, self._settings, directory)
        except (CacheUnusableError, DeadlineExceededError) as exc:
            self._no_cache = (
                f"agent.cache.dir: {exc.message}; images are mounted in place until the agent is "
                "started again"
            )
            log.error("cache_not_used", error=self._no_cache)  # noqa: TRY400 - it is all said
            return None

    def _status(self, jobs: Jobs, holds: Holds, mounter: Mounter) -> AgentStatus:
        return AgentStatus(
            node=self._settings.agent.node,
            system=self._settings.agent.system,
            bus_connected=self._bus.connected,
            mounter=mounter.how,
            mounts=holds.views,
            jobs=jobs.view,
            cache=self._cache.status if self._cache else None,
        )


def open_insides(settings: Settings, entries: Entries | None = None) -> Insides | None:
    """Root alone can put together what others enter. Blocks."""
    if os.geteuid() != 0:
        return None
    pins = Pins(settings.agent_dir / "insides")
    wanted = settings.inside.user_namespaces
    allowed = users_may_have_namespaces() if wanted == "auto" else wanted == "always"
    return Insides(pins, user_namespaces=allowed, entries=entries)


def open_cache(settings: Settings, directory: Path) -> Cache:
    """With what an earlier agent left in it. Blocks."""
    wanted = settings.agent.cache
    # Not Path.resolve: links that go round in a circle are found when it is opened.
    shelf = Shelf(Path(os.path.realpath(directory)), wanted)
    shelf.open()
    return Cache(wanted, shelf, settings.systems[settings.agent.system].image_dir)


def _alone(agent_dir: Path) -> BinaryIO:
    """Two agents in one directory would unmount each other's images; the lock dies with us."""
    try:
        agent_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        if agent_dir.stat().st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"agent.run_dir: {agent_dir} belongs to another user, who could put anything in "
                "place of what the agent keeps there: choose another directory"
            )
        lock = (agent_dir / "agent.lock").open("ab")
    except OSError as exc:
        raise ConfigError(
            f"agent.run_dir: cannot write to {agent_dir}: {exc.strerror}; choose a directory "
            "that the agent's user may write to"
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.close()
        raise ConfigError(
            f"another agent works in {agent_dir}: stop it, or choose another agent.run_dir"
        ) from exc
    return lock
