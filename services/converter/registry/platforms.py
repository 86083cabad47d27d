"""Which of a multi-platform image's variants suits a system."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.errors import InvalidInputError

# What an architecture means when no variant is named.
_BASELINE: Final = {"amd64": 1, "arm64": 8, "arm": 7}
_VARIANT = re.compile(r"v([0-9]{1,2})(?:\.[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor, in the words that image indexes use."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @property
    def _level(self) -> int | None:
        """The variant as a number: a processor runs everything up to its own."""
        if not self.variant:
            return _BASELINE.get(self.architecture, 0)
        match = _VARIANT.fullmatch(self.variant)
        return int(match[1]) if match else None

    def suits(self, system: "Platform") -> bool:
        """Whether software for this platform runs on that system."""
        if (self.os, self.architecture) != (system.os, system.architecture):
            return False
        if self.variant == system.variant:
            return True
        mine, limit = self._level, system._level  # noqa: SLF001 - the same class
        return mine is not None and limit is not None and mine <= limit


def parse_platform(text: str) -> Platform:
    """`os/architecture[/variant]`, as settings and events write it."""
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    if not os or not architecture:
        raise InvalidInputError(f"'{text}' is no platform; write for example linux/amd64")
    return Platform(os, architecture, variant or None)


def best_of(offers: Iterable[Platform], system: Platform) -> int | None:
    """The position of the offer to take: the highest variant that the system can run."""
    suitable = [(offer._level or 0, -at) for at, offer in enumerate(offers) if offer.suits(system)]  # noqa: SLF001
    return -max(suitable)[1] if suitable else None
