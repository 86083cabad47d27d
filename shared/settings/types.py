"""Types that several sections share."""

import ipaddress
import platform
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from shared.errors import InvalidReferenceError
from shared.reference import parse_reference

Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$")]
# Processors that images know under other names than the kernel does.
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def this_platform() -> str:
    return f"linux/{_MACHINES.get(platform.machine(), platform.machine())}"


def _listen_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        message = "write HOST:PORT, for example 127.0.0.1:7600 or [::1]:7600"
        raise ValueError(message)
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        message = "write an absolute path, one that begins with /"
        raise ValueError(message)
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Listen = Annotated[str, AfterValidator(_listen_address)]


def _gateway_url(value: str) -> str:
    """Passwords go over it: over this machine, or encrypted."""
    parts = urlsplit(value)
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return value
    if parts.scheme == "https" and parts.hostname:
        return value
    if parts.scheme == "http" and parts.hostname and is_loopback(parts.hostname):
        return value
    message = (
        "write https://HOST[:PORT], unix:/PATH, or http:// with an address of this machine "
        "(127.0.0.1): users' registry passwords go over it"
    )
    raise ValueError(message)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


GatewayUrl = Annotated[str, AfterValidator(_gateway_url)]


def _mirror(value: str) -> str:
    """A registry, and perhaps the path below which it has another's repositories."""
    try:
        named = parse_reference(f"{value}/image")
    except InvalidReferenceError:
        named = None
    if named is None or named.registry != value.partition("/")[0].lower():
        message = (
            "write a registry, or a path in one: mirror.example.org, or "
            "mirror.example.org:5000/docker-hub"
        )
        raise ValueError(message)
    return value.lower()


def _proxy(value: SecretStr) -> SecretStr:
    """The value may hold a password, and is in no message."""
    text = value.get_secret_value()
    parts = urlsplit(text)
    try:
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if text != DIRECT and not usable:
        message = f"write http://[USER:PASSWORD@]HOST:PORT (or https://), or {DIRECT}"
        raise ValueError(message)
    return value


DIRECT = "direct"
"""In place of a proxy: there is none."""
Mirror = Annotated[str, AfterValidator(_mirror)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
