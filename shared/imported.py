"""Names of imported images: `custom:NAME[:TAG]`, as users of Shifter write them.

A name has one or several parts with slashes between them, of letters in both cases, digits, '_',
'.' and '-'. Its canonical form always has the `custom:` and, unless it is pinned to a digest, a
tag; so no reference to a registry, which begins with a host, is ever the same text. A host that
happens to be called custom is told by its port: `custom:5000/app` is no import. The image `custom`
of Docker Hub is written `docker:custom:TAG`. Standard library only: the command line imports it.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from shared.errors import InvalidReferenceError
from shared.reference import DEFAULT_TAG, parse_reference

TYPE: Final = "custom"
MAX_NAME: Final = 255
_PREFIX: Final = f"{TYPE}:"
_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_TYPED: Final = re.compile(r"custom:(?![0-9]{1,5}/)")
_PORT: Final = re.compile(r"[0-9]{1,5}/")
_BARE_ID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImportedName:
    """One imported image; at least one of tag and digest is there."""

    name: str
    tag: str | None
    digest: str | None = None

    def pinned(self, digest: str) -> "ImportedName":
        """What the name stood for when it had this content."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{_PREFIX}{self.name}{tag}{digest}"


def is_imported(text: str) -> bool:
    """Whether somebody who wrote this means an imported image."""
    return _TYPED.match(text) is not None


def typed(itype: str, text: str) -> str:
    """A reference whose type stands elsewhere, as one that brings its type along."""
    return f"{_PREFIX}{text}" if itype == TYPE and not text.startswith(_PREFIX) else text


def untyped(reference: str) -> str:
    """A canonical reference without its type."""
    return reference.removeprefix(_PREFIX) if is_imported(reference) else reference


def parse_imported(text: str) -> ImportedName:
    """Read a name, with `custom:` before it or without."""
    rest, at, digest = text.removeprefix(_PREFIX).partition("@")
    name, colon, tag = rest.partition(":")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, "after '@' there must be sha256: and 64 hexadecimal digits")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(
            text, "a tag is 1 to 128 letters, digits, '_', '.' or '-', the first no '.' or '-'"
        )
    if not name or len(name) > MAX_NAME:
        raise _invalid(text, f"a name has 1 to {MAX_NAME} characters")
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise _invalid(
            text,
            "between slashes there must be letters, digits and '_', and inside of them '.' and '-'",
        )
    if _PORT.match(name) or _BARE_ID.fullmatch(name):
        raise _invalid(text, "it looks like a port, or like an image's id")
    return ImportedName(name, tag or (None if digest else DEFAULT_TAG), digest or None)


def canonical(text: str) -> str:
    """The one form of whatever names an image: imported, or in a registry."""
    return str(parse_imported(text) if is_imported(text) else parse_reference(text))


def pinned(reference: str, digest: str) -> str:
    """What a canonical reference stands for at this digest, whatever it stands for later."""
    if is_imported(reference):
        return str(parse_imported(reference).pinned(digest))
    return f"{parse_reference(reference).name}@{digest}"


def is_pinned(reference: str) -> bool:
    """Whether a canonical reference never stands for anything else."""
    return "@" in reference


def _invalid(text: str, why: str) -> InvalidReferenceError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InvalidReferenceError(
        f"{shown!r} is no name for an imported image: {why}; write it like load_test:v1"
    )
