"""Which registry a reference means, and as whom this site speaks to it."""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Mapping

import aiohttp

from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import (
    Credentials,
    RegistryEndpoint,
    registry_endpoint,
)
from shared.errors import ConfigError
from shared.settings.site import RegistrySettings

CLIENTS = 256
_BY_DEFAULT = RegistrySettings()


class Registries:
    """Clients for registries, by the name that references use, and by whom they speak for.

    A client keeps its tokens, so the last few are kept. Without a user's credentials it speaks for
    the site: with those of the settings, or none.
    """

    def __init__(self, http: aiohttp.ClientSession, known: Mapping[str, RegistrySettings]) -> None:
        self._http = http
        self._known = known
        # Whole credentials in the key: no two users ever meet in one client, nor their tokens.
        self._clients: OrderedDict[tuple[str, Credentials | None], RegistryClient] = OrderedDict()

    async def client(self, registry: str, user: Credentials | None = None) -> RegistryClient:
        key = (registry, user)
        client = self._clients.get(key)
        if client is None:
            settings = self._known.get(registry, _BY_DEFAULT)
            endpoint = await asyncio.to_thread(_endpoint, registry, settings, user)
            client = self._clients[key] = RegistryClient(self._http, endpoint)
        self._clients.move_to_end(key)
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        return client


def _endpoint(
    registry: str, settings: RegistrySettings, user: Credentials | None
) -> RegistryEndpoint:
    return registry_endpoint(
        registry,
        insecure=settings.insecure or _is_loopback(registry),
        ca_file=settings.ca_file,
        credentials=user or _credentials(registry, settings),
    )


def _credentials(registry: str, settings: RegistrySettings) -> Credentials | None:
    if settings.username is None or settings.password_file is None:
        return None
    try:
        password = settings.password_file.read_text(encoding="utf-8").rstrip("\n")
    except OSError as exc:
        raise ConfigError(
            f"registries.{registry}.password_file cannot be read: {exc.strerror}"
        ) from exc
    return Credentials(username=settings.username, password=password)


def _is_loopback(registry: str) -> bool:
    """Docker's rule: a registry on this very machine speaks plain HTTP."""
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
