"""What `dray doctor` says of each thing that it looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """A note is worth knowing, and may be as it should be; what is broken is not."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is what to do about it."""

    about: str
    verdict: Verdict
    text: str
    advice: str = ""


Findings = Iterator[Finding]


def ok(about: str, text: str) -> Finding:
    return Finding(about, Verdict.OK, text)


def note(about: str, text: str, advice: str = "") -> Finding:
    return Finding(about, Verdict.NOTE, text, advice)


def broken(about: str, text: str, advice: str = "") -> Finding:
    return Finding(about, Verdict.BROKEN, text, advice)
