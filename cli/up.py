"""`dray up`: all four services in one process, the one place that puts them together."""

import asyncio
import fcntl
import ipaddress
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cli.addresses import local_socket, served
from cli.agent import Agent
from cli.defaults import LOOPBACK_GATEWAY, own_data_dir
from cli.errors import CliError, UnreachableError, UsageError
from shared.bus.connect import connect_bus
from shared.config import Settings, load_settings
from shared.errors import MissingDependencyError
from shared.logging import configure_logging
from shared.service import Service, run_services
from shared.settings.types import Listen
from shared.tracing.start import tracing

NEEDED = ("aiosqlite", "cryptography", "isal", "zstandard")
"""What a node's small installation lacks: the gateway's packages and the codecs."""

LOOK_SECONDS = 1.0


class AlreadyUpError(CliError):
    """Another process works on the same data directory."""

    code = "already_up"


def up(config: Path | None, listen: str | None, data: Path | None) -> None:
    """Run until SIGINT or SIGTERM."""
    # Jobs of any user read what we place, whatever umask we were started with.
    os.umask(0o022)
    settings = settings_for(config, listen, data)
    configure_logging(settings.log)
    _warn_if_open(settings.gateway.listen)
    with _alone(settings.data_dir), tracing(settings.tracing):
        _make_own_directories(settings)
        asyncio.run(_run(settings))


def settings_for(config: Path | None, listen: str | None, data: Path | None) -> Settings:
    """The site's settings; what they leave open is chosen for one process on one machine."""
    flags: dict[str, Any] = {}
    if data is not None:
        flags["data_dir"] = str(data.absolute())
    if listen is not None:
        _check(listen)
        flags["gateway"] = {"listen": listen}
    given = load_settings(config, flags)
    chosen: dict[str, Any] = {}
    if not given.agent.model_fields_set:
        chosen["agent"] = {"system": next(iter(given.systems))}
    if "data_dir" not in given.model_fields_set and os.geteuid() != 0:
        chosen["data_dir"] = str(own_data_dir())
    return load_settings(config, {**chosen, **flags})


def _make_own_directories(settings: Settings) -> None:
    """Image directories among our own data: they are looked at from the start, since nobody has to
    mount them first."""
    for system in settings.systems.values():
        if system.image_dir.is_relative_to(settings.data_dir):
            system.image_dir.mkdir(mode=0o711, parents=True, exist_ok=True)


def _check(listen: str) -> None:
    try:
        TypeAdapter(Listen).validate_python(listen)
    except ValidationError as exc:
        problem = exc.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"--listen: {problem}") from exc


async def _run(settings: Settings) -> None:
    services = _build(settings)
    await run_services(services, started=lambda: _tell(settings))


def _build(settings: Settings) -> Sequence[Service]:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"the services need {', '.join(missing)}, not installed here: pip install 'dray[all]'"
        )
    from services.converter import app as converter  # noqa: PLC0415
    from services.distributor import app as distributor  # noqa: PLC0415
    from services.gateway import app as gateway  # noqa: PLC0415
    from services.node_agent import app as node_agent  # noqa: PLC0415

    bus = connect_bus(settings, "dray-up")
    # The gateway answers for the process, and opens the bus first and closes it last.
    return [
        gateway.build(settings, bus),
        converter.build(settings, bus, serve_health=False),
        distributor.build(settings, bus, serve_health=False),
        node_agent.build(settings, bus, serve_health=False),
    ]


def _tell(settings: Settings) -> None:
    url = _url(settings.gateway.listen)
    lines = [f"Dray is up: {url} (dashboard and API), data in {settings.data_dir}"]
    if exports := _exports(url, settings):
        lines += ["In another terminal, first:", *(f"  export {export}" for export in exports)]
    print("\n".join(lines), flush=True)


def _url(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    # One listens to every address, but calls a certain one.
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - compared only
    return f"http://{host}:{port}"


def _exports(url: str, settings: Settings) -> list[str]:
    """What the other commands need to know, as far as they would not find it by themselves."""
    ours, found = settings.gateway_socket, local_socket()
    if found == ours or (found is None and url == LOOPBACK_GATEWAY):
        exports = []
    else:
        # Through the socket we know who asks.
        exports = [f"DRAY_URL={shlex.quote(f'unix://{ours}' if served(ours) else url)}"]
    socket = settings.agent_dir / "agent.sock"
    try:
        there = Agent(None).socket(LOOK_SECONDS) == socket
    except UnreachableError:
        there = False
    return exports if there else [*exports, f"DRAY_SOCKET={shlex.quote(str(socket))}"]


def _warn_if_open(listen: str) -> None:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        print(
            f"dray: warning: {listen} can be reached from other machines, and without encryption: "
            "let a proxy with TLS stand before it. What those may do who do not say who they are "
            "is the setting gateway.anonymous.",
            file=sys.stderr,
        )


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Hold the data directory's lock; it ends with the process, however that ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        handle = (data_dir / "up.lock").open("a+", encoding="ascii")
    except FileExistsError as exc:
        raise UsageError(f"--data: {data_dir} is a file; name a directory") from exc
    except OSError as exc:
        raise CliError(
            f"cannot write to {data_dir}: {exc.strerror}; choose another place with --data"
        ) from exc
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read(32).strip() or "unknown"
            raise AlreadyUpError(
                f"another `dray up` (process {holder}) works on {data_dir}: stop it first, or "
                "give this one a place of its own with --data and --listen"
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield
