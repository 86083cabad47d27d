"""`dray doctor`: look at everything that a user or an operator could stumble over, and say what
to do about each.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cli import show
from cli.errors import EXIT_FAILED
from cli.findings import Finding, Findings, Verdict
from cli.tables import GREEN, RED, YELLOW, painted


@dataclass(frozen=True, slots=True)
class Wish:
    """Where to look."""

    urls: str
    socket: Path | None
    config: Path | None


def doctor(wish: Wish, *, json: bool) -> int:
    """The exit code: 1 if anything is broken."""
    if json:
        found = list(_examined(wish))
        show.document({"items": [asdict(finding) for finding in found]})
    else:
        found = list(_told(_examined(wish)))
        print(_summary(found))
    return EXIT_FAILED if any(each.verdict is Verdict.BROKEN for each in found) else 0


def _examined(wish: Wish) -> Findings:
    from cli import doctor_gateways, doctor_machine, doctor_site  # noqa: PLC0415

    yield from doctor_gateways.examined(wish.urls)
    yield from doctor_machine.examined(wish.socket)
    if wish.config is not None:
        yield from doctor_site.examined(wish.config)


_COLOURS = {Verdict.OK: GREEN, Verdict.NOTE: YELLOW, Verdict.BROKEN: RED}


def _told(findings: Iterable[Finding]) -> Findings:
    """Each as soon as it is found: some are waited for."""
    for finding in findings:
        verdict = painted(f"{finding.verdict:<6}", _COLOURS[finding.verdict])
        print(f"{verdict}  {finding.about:<12} {show.plain(finding.text)}", flush=True)
        for line in filter(None, show.plain(finding.advice).split("\n")):
            print(f"{'':<8}{'':<12} {line}")
        yield finding


def _summary(found: list[Finding]) -> str:
    wrong = sum(each.verdict is Verdict.BROKEN for each in found)
    if not wrong:
        return "\nNothing is broken."
    return f"\n{show.count(wrong, 'thing')} {'is' if wrong == 1 else 'are'} broken."
