"""What `dray doctor --config` looks at for an operator: settings, directories, bus and database.

Loads what services load; nothing is changed, and nothing is sent but a greeting.
"""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cli import doctor_inside
from cli.doctor_machine import room
from cli.findings import Finding, Findings, broken, ok
from shared.config import Settings, load_settings
from shared.errors import DrayError

SECONDS: Final = 5.0
PORTS: Final = {"amqp": 5672, "amqps": 5671, "mongodb": 27017}


def examined(config: Path) -> Findings:
    try:
        settings = load_settings(config)
    except DrayError as exc:
        yield broken("settings", exc.message)
        return
    yield ok("settings", f"{config} can be used")
    yield room("data", settings.data_dir, must_write=True)
    yield room("store", settings.store, must_write=True)
    for name, system in settings.systems.items():
        yield room(f"images {name}"[:12], system.image_dir, must_write=True)
    yield from doctor_inside.of_site(settings.inside)
    yield from _servers(settings)


def _servers(settings: Settings) -> Findings:
    bus = settings.bus.url.get_secret_value()
    yield from _reached("bus", [bus])
    scheme, _, rest = settings.catalog_url.partition("://")
    if scheme == "mongodb":
        hosts = rest.partition("/")[0].rpartition("@")[2]
        yield from _reached("catalog", [f"mongodb://{host}" for host in hosts.split(",")])


def _reached(about: str, urls: Iterable[str]) -> Findings:
    """Each server's port; never the whole address, in which passwords stand."""
    for url in urls:
        parts = urlsplit(url)
        if parts.hostname is None:
            continue
        yield _connected(about, parts.hostname, parts.port or PORTS.get(parts.scheme, 0))


def _connected(about: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError as exc:
        reason = exc.strerror or str(exc)
        advice = "Is it running, and does a firewall let this machine through?"
        return broken(about, f"{host}:{port} cannot be reached: {reason}", advice)
    return ok(about, f"{host}:{port} can be reached")
