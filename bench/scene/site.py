"""The site, put together: a real gateway, and all that only pretends."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.scene.cast import OWNER, SECOND_SYSTEM, SYSTEM
from bench.scene.crowd import Crowd
from bench.scene.dead import DeadLetters
from bench.scene.nodes import HEARTBEAT, Agents, SceneBus
from bench.scene.past import minutes
from bench.scene.scheduler import Scheduler, site_nodes
from bench.scene.shelf import images, put, usage
from bench.scene.workers import CONVERTER_SLOTS, DISTRIBUTOR_SLOTS, Workers
from services.gateway.app import Gateway
from services.gateway.auth.compose import site_secret
from services.gateway.auth.identity import Scope
from services.gateway.auth.tokens import Claims, Tokens
from services.gateway.transitions import Transitions
from shared.catalog.interface import Catalog
from shared.catalog.open import catalog_at
from shared.config import Settings
from shared.deadline import Deadline
from shared.service import Service

SYSTEMS: Final = (SYSTEM, SECOND_SYSTEM)
_TOKEN_SECONDS: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much there is of everything."""

    nodes: int = 10_000
    """Of the largest job."""
    pulls: int = 30
    """Under way at a time."""
    converters: int = CONVERTER_SLOTS
    """So many of the pulls are converted at a time; the others wait."""
    distributors: int = DISTRIBUTOR_SLOTS
    """So many are placed at a time, on each system."""
    heartbeat: float = HEARTBEAT
    seed: int = 1
    plain: bool = False
    """Without names that look like HTML."""
    port: int = 0
    """0: any that is free."""


@dataclass(frozen=True, slots=True)
class Site:
    """What is to be started, and how it is reached."""

    services: Sequence[Service]
    catalog: Catalog
    url: str
    admin: str
    user: str
    """Tokens."""
    socket: Path


async def prepared(work: Path, scale: Scale) -> Site:
    """A site in that directory, with a past."""
    port = scale.port or _free_port()
    settings = _settings(work, port, scale.heartbeat)
    rules = Transitions(settings.pull, settings.systems)
    seed = scale.seed
    bus = SceneBus(SYSTEMS)
    agents = Agents(bus, site_nodes(scale.nodes), seed, scale.heartbeat)
    catalog = catalog_at(settings.catalog_url, timeout=30.0)
    await catalog.open(Deadline.after(30))
    await put(catalog.images, images(rules, seed))
    await put(catalog.usage, usage(seed))
    await put(catalog.nodes, agents.records())
    await put(catalog.history, minutes(agents.count, seed))
    await catalog.close()
    # One catalog for the gateway and whoever plays the users: what they ask for is seen at once.
    catalog = catalog_at(settings.catalog_url, timeout=30.0)
    secret = site_secret(settings)
    services: tuple[Service, ...] = (
        Gateway(settings, bus, catalog, secret),
        Workers(
            bus,
            SYSTEMS,
            seed,
            head_start=scale.pulls,
            slots=scale.converters,
            places=scale.distributors,
        ),
        agents,
        Crowd(catalog, rules, pulls=scale.pulls, seed=seed, plain=scale.plain),
        Scheduler(catalog, agents, settings.gateway_socket, nodes=scale.nodes, seed=seed),
        DeadLetters(bus, plain=scale.plain),
    )
    return Site(
        services,
        catalog,
        url=f"http://127.0.0.1:{port}",
        admin=_token(Tokens(secret), "service:operator", None, Scope.ADMIN),
        user=_token(Tokens(secret), str(OWNER.uid), OWNER.uid, Scope.PULL),
        socket=settings.gateway_socket,
    )


def _settings(work: Path, port: int, heartbeat: float) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": work,
            "systems": {name: {"image_dir": work / name} for name in SYSTEMS},
            "agent": {"system": SYSTEM, "heartbeat": heartbeat, "stage_timeout": 3600.0},
            "pull": {"lease": 3600.0, "sweep_interval": 1.0, "max_tries": 100},
            "gateway": {"listen": f"127.0.0.1:{port}"},
        }
    )


def _token(tokens: Tokens, name: str, uid: int | None, scope: Scope) -> str:
    now = time.time()
    claims = Claims(
        id=name,
        name=name,
        scopes=frozenset({scope}),
        issued=now,
        expires=now + _TOKEN_SECONDS,
        uid=uid,
    )
    return tokens.sign(claims)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
