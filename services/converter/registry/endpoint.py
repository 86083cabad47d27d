"""Where a registry is, how it is reached, and as whom it is spoken to."""

import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from services.converter.registry.proxies import Proxies, proxies_from
from shared.errors import ConfigError
from shared.logging import get_logger

log = get_logger(__name__)

# The one registry whose name in references is not the host that serves it.
_SERVED_BY = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password or token; neither is ever shown."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ways:
    """How hosts are reached: by which proxy, whom we trust, and who we are to one of them.

    A certificate of ours is for the registry's own host: the hosts of its blobs have no need to
    know who asks.
    """

    trust: ssl.SSLContext | None = field(default=None, repr=False)
    """None: the system's authorities, and nobody else's."""
    own: ssl.SSLContext | None = field(default=None, repr=False)
    """With our certificate; None: we have none."""
    host: str | None = None
    proxies: Proxies = field(default_factory=Proxies)

    def tls(self, url: URL) -> ssl.SSLContext | None:
        return self.own if self.own is not None and url.host == self.host else self.trust


DIRECTLY = Ways()


@dataclass(frozen=True, slots=True)
class Certificate:
    """Who we are to a registry that wants to see a certificate; without `key` it is in `file`."""

    file: Path
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class RegistryEndpoint:
    """One registry for one user: its tokens are never shared with another's."""

    registry: str
    base_url: URL
    ways: Ways = DIRECTLY
    credentials: Credentials | None = None


def registry_endpoint(
    registry: str,
    *,
    insecure: bool = False,
    ca_file: Path | None = None,
    certificate: Certificate | None = None,
    proxy: str | None = None,
    environment: Mapping[str, str] | None = None,
    credentials: Credentials | None = None,
) -> RegistryEndpoint:
    """The endpoint of a reference's registry. Reads files: make it once, not per request.

    Without a `proxy` of its own, and with an `environment`, that says which proxy to use.
    """
    base_url = URL(f"{'http' if insecure else 'https'}://{_SERVED_BY.get(registry, registry)}")
    trust = own = None
    if not insecure:
        trust = _trusting(ca_file) if ca_file is not None else None
        own = _showing(certificate, ca_file) if certificate is not None else None
    proxies = proxies_from(proxy, environment or {})
    ways = Ways(trust=trust, own=own, host=base_url.host, proxies=proxies)
    return RegistryEndpoint(registry, base_url, ways, credentials)


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    # The system's authorities stay trusted: a private registry may redirect to a public blob store.
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(f"ca_file {ca_file} is not a readable PEM file: {exc}") from exc
    return context


def _showing(certificate: Certificate, ca_file: Path | None) -> ssl.SSLContext:
    context = _trusting(ca_file)
    key = certificate.key or certificate.file
    for name, path in ("cert_file", certificate.file), ("key_file", key):
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
        except OSError as exc:
            raise ConfigError(f"{name} {path} cannot be read: {exc.strerror}") from exc
    warn_of_open_file(key, mode)
    try:
        # Where a key wants a passphrase, nobody is there to type it.
        context.load_cert_chain(certificate.file, key, password=_no_passphrase)
    except (OSError, ssl.SSLError, ValueError) as exc:
        raise ConfigError(
            f"cert_file {certificate.file} and key_file {key} are not a certificate and its key, "
            "both PEM and the key without a passphrase"
        ) from exc
    return context


def _no_passphrase() -> str:
    message = "the key wants a passphrase"
    raise ValueError(message)


def warn_of_open_file(path: Path, mode: int) -> None:
    """Not refused: in containers, secrets are often mounted so."""
    if stat.S_IMODE(mode) & stat.S_IROTH:
        log.warning("secret_readable_by_all", path=str(path), advice="chmod 0400")
