"""What keeps users waiting, or soon will: from facts to sentences that say what to do.

Pure. Facts that are not known, or not for whoever asks, are None, and nothing is made of them.
Counts and codes only: the name of an image may be somebody's secret.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from services.gateway.standing.pulls import PullStandings
from services.gateway.stock.storage import LowDirectory
from shared.api import JobsStanding, NodesStanding, QueueStanding, Worry
from shared.bus.topology import CONVERTER_PULLS, GATEWAY_EVENTS, GATEWAY_NODES, distributor_queue

LONG_WAIT_SECONDS: Final = 600.0
UNATTENDED_SECONDS: Final = 5.0
"""A pull without a worker for less long may see one that is only coming back."""
BEHIND_SECONDS: Final = 30.0
SLOW_SECONDS: Final = 1.0
FAILURES: Final = 5
LOST_SHARE: Final = 0.05
AWAY: Final = "catalog_away"
USERS_OWN: Final = frozenset(
    {
        "image_not_found",
        "registry_access_refused",
        "platform_not_found",
        "unsupported_image",
        "not_admitted",
        "foreign_origin",
        "not_as_this_user",
        "import_place_not_allowed",
        "archive_not_found",
        "archive_invalid",
        "archive_too_large",
        "image_not_in_archive",
        "disk_damaged",
        "disk_unclean",
        "disk_unsupported",
        "tree_invalid",
        "tree_unreadable",
        "tree_changed",
        "tree_too_large",
        "layer_too_large",
        "image_too_large",
        "image_unsupported",
        "image_limit",
        "quota_exceeded",
        "cancelled",
    }
)
"""Failures that users cause, and mend, themselves."""


@dataclass(frozen=True, slots=True)
class Facts:
    """How the site stands, as far as it is known and whoever asks may know it."""

    systems: Sequence[str]
    pulls: PullStandings
    bus: bool
    """It can be reached."""
    catalog: bool
    """It answers."""
    catalog_seconds: float | None = None
    queues: Mapping[str, QueueStanding] | None = None
    dead_letters: int | None = None
    nodes: NodesStanding | None = None
    jobs: JobsStanding | None = None
    jobs_with_failures: int = 0
    unsettled_seconds: float | None = None
    low: Sequence[LowDirectory] = field(default_factory=tuple)


Level = Literal["warning", "critical"]
Found = tuple[Level, str]


def worries(facts: Facts) -> tuple[Worry, ...]:
    """The worst first."""
    found = [
        Worry(code=code, level=level, message=message)
        for code, look in _LOOKS.items()
        for level, message in look(facts)
    ]
    return tuple(sorted(found, key=lambda worry: worry.level != "critical"))


def _bus_away(facts: Facts) -> Iterator[Found]:
    if not facts.bus:
        yield _critical(
            "The event bus cannot be reached: no pull goes on until it is back. Check that the "
            "broker runs and that bus.url names it."
        )


def _catalog_away(facts: Facts) -> Iterator[Found]:
    if not facts.catalog:
        yield _critical(
            "The catalog's database does not answer: nothing can be asked for or looked up. "
            "Check that it runs and that catalog.url names it."
        )


def _no_converter(facts: Facts) -> Iterator[Found]:
    queue = (facts.queues or {}).get(CONVERTER_PULLS.name)
    if queue is None or queue.consumers:
        return
    waiting = facts.pulls.conversions_waiting
    if waiting and facts.pulls.longest_conversion_wait >= UNATTENDED_SECONDS:
        have = _count(waiting, "pull waits", "pulls wait")
        yield _critical(f"{have} and no converter takes them: start a converter, or see its log.")
    else:
        yield _warning("No converter runs: pulls will wait until one is started.")


def _no_distributor(facts: Facts) -> Iterator[Found]:
    for system in facts.systems:
        queue = (facts.queues or {}).get(distributor_queue(system).name)
        if queue is None or queue.consumers:
            continue
        placements = facts.pulls.placements.get(system)
        if placements and placements.waiting and placements.longest_wait >= UNATTENDED_SECONDS:
            have = _count(placements.waiting, "image waits", "images wait")
            yield _critical(
                f"{have} to be placed on {system} and no distributor takes them: start one for "
                "that system, or see its log."
            )
        else:
            yield _warning(
                f"No distributor runs for {system}: images will wait to be placed until one is "
                "started."
            )


def _image_directory_low(facts: Facts) -> Iterator[Found]:
    for low in facts.low:
        if low.system in facts.systems:
            yield _critical(
                f"The image directory of {low.system} has {_size(low.free_bytes)} left and keeps "
                f"{_size(low.reserve_bytes)} back: pulls fail. Expire images, or make room there."
            )


def _pulls_failing(facts: Facts) -> Iterator[Found]:
    failures = {
        code: count for code, count in facts.pulls.failures.items() if code not in USERS_OWN
    }
    failed = sum(failures.values())
    if failed >= FAILURES:
        commonest = max(failures, key=lambda code: (failures[code], code))
        yield _warning(
            f"{failed} pulls failed in the last 15 minutes, most often with {commonest}: see the "
            "reasons in the queue."
        )


def _long_waits(facts: Facts) -> Iterator[Found]:
    queue = (facts.queues or {}).get(CONVERTER_PULLS.name)
    if queue is not None and queue.consumers:
        waits = facts.pulls.longest_conversion_wait
        if waits >= LONG_WAIT_SECONDS:
            have = _count(facts.pulls.conversions_waiting, "pull waits", "pulls wait")
            yield _warning(
                f"{have} for a free converter, the first for {_minutes(waits)}: start more "
                "converters, or raise converter.slots."
            )
    for system in facts.systems:
        queue = (facts.queues or {}).get(distributor_queue(system).name)
        placements = facts.pulls.placements.get(system)
        if queue is None or not queue.consumers or placements is None:
            continue
        if placements.longest_wait >= LONG_WAIT_SECONDS:
            have = _count(placements.waiting, "image waits", "images wait")
            yield _warning(
                f"{have} to be placed on {system}, the first for "
                f"{_minutes(placements.longest_wait)}: start more distributors, or raise "
                "distributor.slots."
            )


def _registry_waits(facts: Facts) -> Iterator[Found]:
    if facts.pulls.held_up:
        have = _count(facts.pulls.held_up, "pull waits", "pulls wait")
        yield _warning(
            f"{have} for a registry that is slow or asks to come back later: a login or a mirror "
            "of that registry helps against limits."
        )


def _staging_failed(facts: Facts) -> Iterator[Found]:
    if facts.jobs is not None and facts.jobs_with_failures:
        nodes = _count(facts.jobs.failed, "node", "nodes")
        jobs = _count(facts.jobs_with_failures, "running job", "running jobs")
        yield _warning(
            f"{nodes} of {jobs} could not stage their images: `dray jobs JOB` tells why."
        )


def _nodes_lost(facts: Facts) -> Iterator[Found]:
    if facts.nodes is None or not facts.nodes.lost:
        return
    of_jobs = 0 if facts.jobs is None else facts.jobs.lost
    share = facts.nodes.lost / (facts.nodes.lost + facts.nodes.alive)
    if of_jobs or share >= LOST_SHARE:
        have = _count(facts.nodes.lost, "node is not heard", "nodes are not heard")
        which = (
            "it is" if facts.nodes.lost == 1 else f"{min(of_jobs, facts.nodes.lost)} of them are"
        )
        running = f"; {which} in running jobs" if of_jobs else ""
        yield _warning(
            f"{have} any more{running}: check that dray's node agent runs there and reaches the "
            "event bus; `dray nodes --lost` names them."
        )


def _dead_letters(facts: Facts) -> Iterator[Found]:
    if facts.dead_letters:
        have = _count(facts.dead_letters, "event has", "events have")
        yield _warning(
            f"{have} failed for good: see `dray queue dead`, and replay them when the cause is "
            "gone."
        )


def _outbox_stuck(facts: Facts) -> Iterator[Found]:
    if facts.unsettled_seconds and facts.bus:
        yield _critical(
            f"Events have been waiting in the outbox for {_minutes(facts.unsettled_seconds)} and "
            "the bus does not take them: see event_kept_in_outbox in the gateways' logs."
        )


def _gateway_behind(facts: Facts) -> Iterator[Found]:
    for queue in (GATEWAY_EVENTS, GATEWAY_NODES):
        standing = (facts.queues or {}).get(queue.name)
        if standing is None or not standing.waiting:
            continue
        if (standing.oldest_seconds or 0.0) >= BEHIND_SECONDS or not standing.consumers:
            yield _warning(
                f"The gateways do not keep up with {queue.name}: what is shown is behind by "
                "more than half a minute. Start another gateway, or see how slow the catalog is."
            )


def _catalog_slow(facts: Facts) -> Iterator[Found]:
    if facts.catalog_seconds is not None and facts.catalog_seconds >= SLOW_SECONDS:
        yield _warning(
            f"The catalog's database takes {facts.catalog_seconds:.1f} s to answer: see its load, "
            "its disk and dray_catalog_call_seconds."
        )


_LOOKS: Final[Mapping[str, Callable[[Facts], Iterator[Found]]]] = {
    AWAY: _catalog_away,
    "bus_away": _bus_away,
    "no_converter": _no_converter,
    "no_distributor": _no_distributor,
    "image_directory_low": _image_directory_low,
    "pulls_failing": _pulls_failing,
    "long_waits": _long_waits,
    "registry_waits": _registry_waits,
    "staging_failed": _staging_failed,
    "nodes_lost": _nodes_lost,
    "dead_letters": _dead_letters,
    "outbox_stuck": _outbox_stuck,
    "gateway_behind": _gateway_behind,
    "catalog_slow": _catalog_slow,
}
CODES: Final = tuple(_LOOKS)


def _critical(message: str) -> Found:
    return "critical", message


def _warning(message: str) -> Found:
    return "warning", message


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"


def _size(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB"
