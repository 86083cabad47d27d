"""Image references: what users type for an image in a registry, made canonical.

The rules are Docker's: a first part with a dot, a colon or the name localhost is a registry, all
else lives in docker.io, and its one-word names in docker.io/library. Only parse_reference makes an
ImageReference, so that its parts are safe to use in a URL. `docker:` or `docker://` before it, as
Shifter and skopeo have it, says nothing new; but `docker:dind` is a tag of the image `docker`.
Standard library only: the command line imports it too.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final

from shared.errors import InvalidReferenceError

MAX_REFERENCE: Final = 512
MAX_REPOSITORY: Final = 255
DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"

_LEGACY_DEFAULT_REGISTRY = "index.docker.io"
_EXAMPLE = "write it like ubuntu:24.04 or registry.example.org:5000/group/image:1.0"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")
# Not where a tag follows, or the port of a host that is named docker.
_TRANSPORT = re.compile(r"docker:(?://|(?=.*[/:@])(?![0-9]{1,5}/))")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """One image in one registry; at least one of tag and digest is there."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """The registry and the repository, without a version."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest pins, the tag only names."""
        version = self.digest or self.tag
        assert version is not None
        return version

    def pinned(self, digest: str) -> "ImageReference":
        """The same name at exactly this digest."""
        return replace(self, digest=_checked_digest(str(self), digest))

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def parse_reference(text: str) -> ImageReference:
    """Read what a user typed; InvalidReferenceError says what is wrong with it."""
    if not text:
        raise _invalid(text, "it is empty")
    if len(text) > MAX_REFERENCE:
        raise _invalid(text, f"it is longer than {MAX_REFERENCE} characters")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _invalid(text, "it has a space or a character outside plain ASCII")
    transport = _TRANSPORT.match(text)
    untyped = text[transport.end() :] if transport else text
    if "://" in untyped:
        raise _invalid(text, "leave out everything up to and including '://'")
    rest, at, digest = untyped.partition("@")
    checked_digest = _checked_digest(text, digest) if at else None
    registry, remainder = _split_registry(text, rest)
    path, colon, tag = remainder.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(
            text,
            f"the tag {_shown(tag)} must be 1 to 128 letters, digits, '_', '.' or '-', "
            "and not begin with '.' or '-'",
        )
    if not colon and checked_digest is None:
        tag = DEFAULT_TAG
    repository = _checked_repository(text, registry, path)
    reference = ImageReference(registry, repository, tag or None, checked_digest)
    if len(str(reference)) > MAX_REFERENCE:
        raise _invalid(text, f"in full it is longer than {MAX_REFERENCE} characters")
    return reference


def _split_registry(text: str, rest: str) -> tuple[str, str]:
    first, slash, remainder = rest.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost" or first.startswith("[")
    if not slash or not looks_like_host:
        return DEFAULT_REGISTRY, rest
    return _checked_registry(text, first), remainder


def _checked_registry(text: str, written: str) -> str:
    match = _HOST_AND_PORT.fullmatch(written.lower())
    if match is None:
        raise _invalid(text, f"{_shown(written)} is not a host or host:port")
    host, port = match[1], match[2]
    if host.startswith("["):
        host = _checked_ipv6(text, host)
    elif len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in host.split(".")):
        raise _invalid(text, f"{_shown(host)} is not a host name")
    if port is None:
        return DEFAULT_REGISTRY if host == _LEGACY_DEFAULT_REGISTRY else host
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise _invalid(text, f"the port {_shown(port)} is not a number from 1 to 65535")
    return f"{host}:{int(port)}"


def _checked_ipv6(text: str, host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise _invalid(text, f"{_shown(host)} is not an IPv6 address") from None
    if address.scope_id is not None:
        raise _invalid(text, f"{_shown(host)} has a zone, which only this machine understands")
    return f"[{address.compressed}]"


def _checked_repository(text: str, registry: str, path: str) -> str:
    if not path:
        raise _invalid(text, "the image's name is missing")
    if path != path.lower():
        raise _invalid(text, f"the name {_shown(path)} must be in lower case")
    if registry == DEFAULT_REGISTRY and "/" not in path:
        if _BARE_ID.fullmatch(path):
            raise _invalid(text, "it is an image id, not a name in a registry")
        path = f"library/{path}"
    if len(path) > MAX_REPOSITORY:
        raise _invalid(text, f"the name is longer than {MAX_REPOSITORY} characters")
    for component in path.split("/"):
        if not component:
            raise _invalid(text, "there is nothing between two slashes or at the name's end")
        if not _COMPONENT.fullmatch(component):
            raise _invalid(
                text,
                f"the name part {_shown(component)} must be letters and digits with '.', '_', "
                "'__' or '-' between them",
            )
    return path


def _checked_digest(text: str, digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise _invalid(text, "after '@' there must be sha256: and 64 hexadecimal digits")
    return digest


def _shown(part: str) -> str:
    return repr(part if len(part) <= 80 else part[:77] + "...")


def _invalid(text: str, why: str) -> InvalidReferenceError:
    return InvalidReferenceError(f"{_shown(text)} is not an image reference: {why}; {_EXAMPLE}")
