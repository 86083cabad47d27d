"""The report: medians and spreads as Markdown tables, ratios against Dray, and the limit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.convert.limit import Limit
from bench.convert.measure import Measured
from bench.convert.rounds import Kind, Results, Run

US: Final = "dray"
BUSY_LOAD: Final = 0.2
MEGA: Final = 1e6
LIMIT_RATIO: Final = 1.4


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the project promises against a peer: how many times its wall clock time is ours."""

    peer: str
    cold: float
    update: float


WANTED: Final = (
    Wanted("podman-hpc", 3, 6),
    Wanted("enroot", 7, 50),
)

PROMISED: Final = ("sci", "many")
"""Images of the size that promises are made for."""

Get = Callable[[Measured], float]


def render(results: Results) -> str:
    """All of it as one Markdown text."""
    lines = [*_machine(results), ""]
    for image in dict.fromkeys(run.image for run in results.runs):
        for kind in ("cold", "update"):
            chosen = [run for run in results.runs if (run.image, run.kind) == (image, kind)]
            if chosen:
                lines += [*_table(image, kind, chosen), ""]
        lines += [*_limit(results, image), ""]
    lines += [*_promises(results), *_notes(results)]
    return "\n".join(lines).rstrip() + "\n"


def _machine(results: Results) -> Iterator[str]:
    machine = results.machine
    yield (
        f"{machine.date}: {machine.cores} cores of {machine.processor}, "
        f"{machine.memory / 1e9:.0f} GB, Linux {machine.kernel}, {machine.file_system}, "
        f"Python {machine.python}; page cache {'dropped' if machine.caches_dropped else 'warm'} "
        "before each conversion."
    )
    if machine.load > BUSY_LOAD:
        yield f"**The machine was busy (load {machine.load:.1f}): take no figure from this run.**"
    yield ""
    yield from results.images


def _table(image: str, kind: Kind, runs: Sequence[Run]) -> Iterator[str]:
    by_name: dict[str, list[Measured]] = {}
    for run in runs:
        by_name.setdefault(run.contender, []).append(run.measured)
    ours = by_name.get(US)
    title = "cold" if kind == "cold" else "update: another top layer"
    yield f"### {image}, {title}"
    yield ""
    yield (
        "| | wall s | CPU s | registry CPU s | memory MB | disk peak MB | disk kept MB "
        "| written MB | image MB | wall : dray | CPU : dray |"
    )
    yield "|---" * 11 + "|"
    for name, measured in by_name.items():
        cells = [
            name,
            _spread(measured, lambda one: one.wall),
            _spread(measured, lambda one: one.cpu),
            _registry(measured),
            *(
                f"{_median(measured, get) / MEGA:,.0f}"
                for get in (_memory, _disk_peak, _disk_kept, _written, _output)
            ),
            _ratio(measured, ours, lambda one: one.wall),
            _ratio(measured, ours, lambda one: one.cpu),
        ]
        yield f"| {' | '.join(cells)} |"


def _limit(results: Results, image: str) -> Iterator[str]:
    limits = results.limits.get(image, [])
    if not limits:
        return
    chosen = sorted(limits, key=lambda limit: limit.seconds)[len(limits) // 2]
    yield f"Limit of {image}: {_explained(chosen)}"
    for name in results.contenders:
        runs = [
            run.measured
            for run in results.runs
            if (run.image, run.kind, run.contender) == (image, "cold", name)
        ]
        if runs and name.startswith(US):
            ratio = _median(runs, lambda one: one.wall) / chosen.seconds
            yield f"{name}: {ratio:.2f} times the limit (wanted: at most {LIMIT_RATIO})"


def _explained(limit: Limit) -> str:
    return (
        f"max(transfer {limit.transfer:.2f}, (sha256 {limit.sha256_blobs:.2f} + gunzip "
        f"{limit.gunzip:.2f} + sha256 {limit.sha256_tars:.2f} + zstd {limit.zstd:.2f}) / "
        f"{limit.cores} cores = {limit.work:.2f}) = **{limit.seconds:.2f} s**"
    )


def _promises(results: Results) -> Iterator[str]:
    verdicts = [
        verdict
        for image in PROMISED
        for wanted in WANTED
        for verdict in _kept(results, image, wanted)
    ]
    if verdicts:
        yield "What is promised (wall of the peer : wall of dray):"
        yield ""
        yield from verdicts
        yield ""


def _kept(results: Results, image: str, wanted: Wanted) -> Iterator[str]:
    for kind, least in (("cold", wanted.cold), ("update", wanted.update)):
        peer, ours = (
            [
                run.measured.wall
                for run in results.runs
                if (run.image, run.kind, run.contender) == (image, kind, name)
            ]
            for name in (wanted.peer, US)
        )
        if peer and ours:
            ratio = median(peer) / median(ours)
            verdict = "kept" if ratio >= least else "NOT KEPT"
            yield f"- {image}, {kind}, {wanted.peer}: {ratio:.1f}, wanted {least:g}: {verdict}"


def _notes(results: Results) -> Iterator[str]:
    yield "Who is who:"
    yield ""
    for name, about in results.contenders.items():
        yield f"- {name}: {about}"
    for name, why in results.skipped.items():
        yield f"- {name} was skipped: {why}"
    for name, why in results.failed.items():
        yield f"- {name} failed: {' '.join(why.split())[-400:]}"


def _memory(one: Measured) -> float:
    return one.memory


def _disk_peak(one: Measured) -> float:
    return one.disk_peak


def _disk_kept(one: Measured) -> float:
    return one.disk_kept


def _written(one: Measured) -> float:
    return one.written


def _output(one: Measured) -> float:
    return one.output


def _median(measured: Sequence[Measured], get: Get) -> float:
    return median(get(one) for one in measured)


def _spread(measured: Sequence[Measured], get: Get) -> str:
    values = [get(one) for one in measured]
    middle = f"{median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}-{max(values):.2f})"


def _registry(measured: Sequence[Measured]) -> str:
    values = [one.registry_cpu for one in measured if one.registry_cpu is not None]
    return f"{median(values):.2f}" if values else "-"


def _ratio(measured: Sequence[Measured], ours: Sequence[Measured] | None, get: Get) -> str:
    if not ours or not _median(ours, get):
        return "-"
    return f"{_median(measured, get) / _median(ours, get):.1f}"
