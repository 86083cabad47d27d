"""Where a registry is and how it is spoken to."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from shared.errors import ConfigError

# The one registry whose name in references is not the host that serves it.
_SERVED_BY = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password or token; neither is ever shown."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegistryEndpoint:
    """One registry for one user: its tokens are never shared with another's."""

    registry: str
    base_url: URL
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    credentials: Credentials | None = None


def registry_endpoint(
    registry: str,
    *,
    insecure: bool = False,
    ca_file: Path | None = None,
    credentials: Credentials | None = None,
) -> RegistryEndpoint:
    """The endpoint of a reference's registry. Reads `ca_file`: make it once, not per request."""
    scheme = "http" if insecure else "https"
    return RegistryEndpoint(
        registry=registry,
        base_url=URL(f"{scheme}://{_SERVED_BY.get(registry, registry)}"),
        tls=_trusting(ca_file) if ca_file is not None and not insecure else None,
        credentials=credentials,
    )


def _trusting(ca_file: Path) -> ssl.SSLContext:
    # The system's authorities stay trusted: a private registry may redirect to a public blob store.
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"ca_file {ca_file} is not a readable PEM file: {exc}") from exc
    return context
