"""Which registry a reference means, and as whom this site speaks to it."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

import aiohttp

from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import (
    Certificate,
    Credentials,
    RegistryEndpoint,
    registry_endpoint,
    warn_of_open_file,
)
from services.converter.registry.mirrors import Mirror, MirroredClient, mirrors_patience
from services.converter.registry.transport import Patience
from shared.errors import ConfigError
from shared.settings.site import RegistrySettings
from shared.settings.types import is_loopback

CLIENTS = 256
_BY_DEFAULT = RegistrySettings()


class Registries:
    """Clients for registries, by the name that references use, and by whom they speak for.

    A client keeps its tokens, so the last few are kept. Without a user's credentials it speaks for
    the site: with those of the settings, or none, and through mirrors. A user's are shown to the
    registry itself alone.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        known: Mapping[str, RegistrySettings],
        patience: Patience = Patience(),  # noqa: B008 - frozen
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` says which proxies there are; as a rule it is that of this process."""
        self._http = http
        self._known = known
        self._patience = patience
        self._environment = dict(os.environ if environment is None else environment)
        # Whole credentials in the key: no two users ever meet in one client, nor their tokens.
        self._clients: OrderedDict[tuple[str, Credentials | None], RegistryClient] = OrderedDict()
        # Of a site's own registries alone: certificates are read once, not for each user.
        self._endpoints: dict[str, RegistryEndpoint] = {}
        # As long as a client has them.
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def client(self, registry: str, user: Credentials | None = None) -> RegistryClient:
        key = (registry, user)
        client = self._clients.get(key)
        if client is None:
            named = () if user is not None else self._settings(registry).mirrors
            mirrors = [await self._mirror(name) for name in named]
            client = await self._made(registry, user, self._patience, mirrors)
            self._clients[key] = client
        self._clients.move_to_end(key)
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        return client

    async def _mirror(self, name: str) -> Mirror:
        host = name.partition("/")[0]
        return Mirror(name, await self._made(host, None, mirrors_patience(self._patience)))

    async def _made(
        self,
        registry: str,
        user: Credentials | None,
        patience: Patience,
        mirrors: Sequence[Mirror] = (),
    ) -> RegistryClient:
        settings = self._settings(registry)
        endpoint = self._endpoints.get(registry)
        if endpoint is None:
            endpoint = await asyncio.to_thread(_endpoint, registry, settings, self._environment)
            if registry in self._known:
                self._endpoints[registry] = endpoint
        site = None
        if user is None:
            site = await asyncio.to_thread(_credentials, registry, settings)
        slots = self._slots.get(registry)
        if slots is None:
            slots = self._slots[registry] = asyncio.Semaphore(settings.connections)
        endpoint = replace(endpoint, credentials=user or site)
        if mirrors:
            return MirroredClient(mirrors, self._http, endpoint, patience, slots)
        return RegistryClient(self._http, endpoint, patience, slots)

    def _settings(self, registry: str) -> RegistrySettings:
        return self._known.get(registry, _BY_DEFAULT)


def _endpoint(
    registry: str, settings: RegistrySettings, environment: Mapping[str, str]
) -> RegistryEndpoint:
    certificate = None
    if settings.cert_file is not None:
        certificate = Certificate(settings.cert_file, settings.key_file)
    encrypted = certificate is not None or settings.ca_file is not None
    try:
        return registry_endpoint(
            registry,
            insecure=settings.insecure or (_is_loopback(registry) and not encrypted),
            ca_file=settings.ca_file,
            certificate=certificate,
            proxy=settings.proxy.get_secret_value() if settings.proxy is not None else None,
            environment=environment,
        )
    except ConfigError as exc:
        raise ConfigError(f"the settings of registry {registry}: {exc.message}") from exc


def _credentials(registry: str, settings: RegistrySettings) -> Credentials | None:
    if settings.username is None or settings.password_file is None:
        return None
    try:
        with settings.password_file.open(encoding="utf-8") as file:
            warn_of_open_file(settings.password_file, os.fstat(file.fileno()).st_mode)
            password = file.read().rstrip("\n")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"registries.{registry}.password_file cannot be read: {why}") from exc
    return Credentials(username=settings.username, password=password)


def _is_loopback(registry: str) -> bool:
    """Docker's rule: a registry on this very machine speaks plain HTTP."""
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
    return is_loopback(host.strip("[]"))
