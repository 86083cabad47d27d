"""Which proxy leads to a host: what a site's settings say, else the environment, as curl reads it.

`HTTPS_PROXY` and `HTTP_PROXY` name one by the scheme that is spoken to the registry, `NO_PROXY` the
hosts that are asked directly: names with all below them, addresses, networks, `*` for all. This
machine is always asked directly.
"""

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from shared.errors import ConfigError
from shared.settings.types import DIRECT, is_loopback

_MOST_EXEMPT: Final = 1024
_SCHEMES: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class _Exempt:
    """One word of NO_PROXY."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    suffix: str = ""
    port: int | None = None
    below_only: bool = False

    def covers(self, host: str, port: int | None) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            with suppress(ValueError):
                return ipaddress.ip_address(host) in self.network
            return False
        if host == self.suffix:
            return not self.below_only
        return host.endswith(f".{self.suffix}")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of one registry; a proxy's address may hold a password."""

    by_scheme: Mapping[str, URL] = field(default_factory=dict, repr=False)
    exempt: tuple[_Exempt, ...] = ()
    for_nothing: bool = False
    """NO_PROXY is `*`."""

    def leading_to(self, url: URL) -> URL | None:
        """None: the host is asked directly."""
        proxy = self.by_scheme.get(url.scheme)
        host = (url.host or "").lower().rstrip(".")
        if proxy is None or self.for_nothing or is_loopback(host):
            return None
        return None if any(word.covers(host, url.port) for word in self.exempt) else proxy


def proxies_from(chosen: str | None, environment: Mapping[str, str]) -> Proxies:
    """`chosen` is a registry's setting, and all that counts where it is set."""
    if chosen == DIRECT:
        return Proxies()
    if chosen is not None:
        return Proxies(dict.fromkeys(_SCHEMES, _address(chosen, "proxy")))
    by_scheme = {}
    for scheme in _SCHEMES:
        name = f"{scheme}_proxy"
        if text := environment.get(name) or environment.get(name.upper()):
            by_scheme[scheme] = _address(text, name.upper())
    words = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").lower()
    listed = [word.strip() for word in words.split(",")[:_MOST_EXEMPT]]
    exempt = tuple(_exempt(word) for word in listed if word.strip("."))
    return Proxies(by_scheme, exempt, for_nothing="*" in listed)


def _address(text: str, name: str) -> URL:
    """What it says is in no message: it may hold a password."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
        usable = url.scheme in _SCHEMES and bool(url.host) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{name} is no address of a proxy that can be used: write "
            "http://[USER:PASSWORD@]HOST:PORT"
        )
    return url


def _exempt(word: str) -> _Exempt:
    with suppress(ValueError):
        return _Exempt(ipaddress.ip_network(word.strip("[]"), strict=False))
    host, _, port = word.rpartition(":")
    number = int(port) if host and port.isascii() and port.isdigit() else None
    name = host if number is not None else word
    with suppress(ValueError):
        return _Exempt(ipaddress.ip_network(name.strip("[]")), port=number)
    below = name.startswith((".", "*."))
    suffix = name.removeprefix("*").strip(".")
    return _Exempt(suffix=suffix, port=number, below_only=below)
