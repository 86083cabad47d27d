"""Reads WWW-Authenticate: which kinds of credentials a registry wants, and from where.

Follows RFC 9110, and forgives what registries are seen to send (unquoted URLs). It never fails:
what cannot be read ends the list, and what was read so far counts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MAX_HEADER: Final = 8192

_NEXT_WORD = re.compile(r"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_UNQUOTED = re.compile(r"[^\s,\"]+")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in: the scheme in lower case, parameter names in lower case."""

    scheme: str
    params: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of all WWW-Authenticate headers, in order."""
    found: list[Challenge] = []
    for header in headers:
        found.extend(_parse(header[:MAX_HEADER]))
    return tuple(found)


def _parse(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while word := _NEXT_WORD.match(header, at):
        equals = _EQUALS.match(header, word.end())
        if equals is None:
            found.append(Challenge(word[1].lower()))
            token68 = _TOKEN68.match(header, word.end())
            at = token68.end() if token68 else word.end()
            continue
        value = _QUOTED.match(header, equals.end())
        plain = _UNQUOTED.match(header, equals.end())
        if not found or (value is None and plain is None):
            break
        if value is not None:
            text, at = _ESCAPE.sub(r"\1", value[1]), value.end()
        else:
            assert plain is not None
            text, at = plain[0], plain.end()
        found[-1].params.setdefault(word[1].lower(), text)
    return found
