"""What runs on the machines, and how far their nodes are: `dray jobs`."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from cli import show
from cli.answers import read_time, reading
from cli.errors import EXIT_FAILED
from cli.gateway import Gateway
from cli.http import Json
from cli.people import user_ids, users
from cli.tables import PLAIN, Column, Style, state_colour, table
from cli.times import times_of
from shared.hostlist import fold

JOBS_PAGE: Final = 200
NODES_PAGE: Final = 1000
WAIT_SECONDS: Final = 20
"""Of one question: less than any gateway's time limit for it."""
GROUPS: Final = ("FAILED", "LOST", "PENDING", "IN_PLACE", "STAGED", "RELEASED")
"""In the order in which somebody wants to read of them."""


@dataclass(frozen=True, slots=True)
class JobsWish:
    """Which jobs somebody wants to see, the newest first."""

    system: str | None
    user: str | None
    running: bool
    limit: int


@dataclass(frozen=True, slots=True)
class JobWish:
    """One job: each node in a line of its own, and after so many seconds at most."""

    job_id: str
    all_nodes: bool = False
    wait: float | None = None


def jobs(gateway: Gateway, wish: JobsWish, style: Style = PLAIN, *, json: bool) -> int:
    asked = {
        "system": wish.system,
        "uid": str(user_ids([wish.user])[0]) if wish.user else None,
        "running": "true" if wish.running else None,
    }
    found = gateway.pages("/jobs", asked, most=wish.limit, page=JOBS_PAGE)
    if json:
        show.items(found)
        return 0
    with reading("the jobs"):
        rows = [_row(job) for job in found]
    columns = (
        Column("JOB", worth=9),
        Column("OF", worth=6),
        Column("SYSTEM", worth=4),
        Column("IMAGES", worth=2, elastic=True, least=12),
        Column("NODES", worth=8, elastic=True),
        Column("READY", worth=7, right=True),
        Column("FAILED", worth=7, right=True),
        Column("LOST", worth=5, right=True),
        Column("ANNOUNCED", worth=3),
        Column("STATE", worth=6),
    )
    table(columns, rows, "No job has been announced, or none of yours.", style)
    return 0


def job(gateway: Gateway, wish: JobWish, style: Style = PLAIN, *, json: bool) -> int:
    """One job; 1 if nodes of it have failed or are lost."""
    path = f"/jobs/{quote(wish.job_id, safe='')}"
    if wish.wait is not None:
        _wait(gateway, path, wish.wait)
    pages = gateway.whole_pages(path, {"nodes": "all"}, limit=NODES_PAGE)
    raw = next(pages)
    with reading("a job"):
        for page in pages:
            raw["nodes"] += page["nodes"]
        raw.pop("next", None)
        if json:
            show.document(raw)
            return _code(raw)
        if style == PLAIN:
            times = times_of(gateway, path, raw["node_count"]) if raw["node_count"] else ""
            _describe(raw, times)
        if not raw["node_count"]:
            return 0
        if wish.all_nodes:
            _each(raw["nodes"], style)
        else:
            _grouped(raw["nodes"], style)
        return _code(raw)


def _wait(gateway: Gateway, path: str, seconds: float) -> None:
    """Until all nodes have answered, the job has ended, or the time is over."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        began = time.monotonic()
        asked = [("wait", f"{min(left, WAIT_SECONDS):.1f}")]
        raw = gateway.call("GET", path, query=asked).body
        with reading("a job"):
            if raw["released_at"] or (raw["node_count"] and not raw["counts"].get("PENDING")):
                return
        if time.monotonic() - began < 1:  # a gateway with a very short time limit
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))


def _code(raw: Json) -> int:
    return EXIT_FAILED if _count(raw, "FAILED") or _count(raw, "LOST") else 0


def _each(nodes: Iterable[Json], style: Style) -> None:
    rows = [
        (
            str(node["node"]),
            str(node["state"]),
            "" if node["seconds"] is None else show.duration(node["seconds"]),
            _reason(node),
        )
        for node in nodes
    ]
    columns = (
        Column("NODE", worth=9),
        Column("STATE", worth=8, paint=state_colour),
        Column("TOOK", worth=2, right=True),
        Column("REASON", worth=7, elastic=True),
    )
    table(columns, rows, "It has no nodes.", style)


def _grouped(nodes: Iterable[Json], style: Style) -> None:
    """Those that are alike in one line."""
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for node in nodes:
        alike[str(node["state"]), _reason(node)].append(str(node["node"]))
    order = {state: at for at, state in enumerate(GROUPS)}
    groups = sorted(alike.items(), key=lambda each: (order.get(each[0][0], 0), -len(each[1])))
    rows = [(fold(names), str(len(names)), state, reason) for (state, reason), names in groups]
    columns = (
        Column("NODES", worth=9, elastic=True, least=16),
        Column("COUNT", worth=6, right=True),
        Column("STATE", worth=8, paint=state_colour),
        Column("REASON", worth=7, elastic=True, least=24),
    )
    table(columns, rows, "It has no nodes.", style)


def _row(job: Json) -> tuple[str, ...]:
    ready = _count(job, "STAGED") + _count(job, "IN_PLACE") + _count(job, "RELEASED")
    count = int(job["node_count"])
    return (
        str(job["job_id"]),
        _owner(job),
        str(job["system"]),
        ", ".join(str(image)[: show.SHORT_ID] for image in job["images"]),
        str(job["hostlist"]),
        f"{ready}/{count}" if count else "",
        _some(_count(job, "FAILED")),
        _some(_count(job, "LOST")),
        show.age(read_time(job["announced_at"])),
        _state(job),
    )


def _describe(raw: Json, times: str) -> None:
    announced = read_time(raw["announced_at"])
    lines = {
        "job": str(raw["job_id"]),
        "system": str(raw["system"]),
        "of": _owner(raw),
        "announced": f"{announced:%Y-%m-%d %H:%M:%S %Z} by {raw['announced_by']}",
        "state": _state(raw),
        "images": "\n".join(str(image) for image in raw["images"]),
        "nodes": _where(raw),
    }
    if raw["reserved_until"]:
        until = read_time(raw["reserved_until"])
        lines["nodes"] = f"none yet; it holds its images until {until:%Y-%m-%d %H:%M %Z}"
    if raw["released_at"]:
        lines["state"] += f" {show.age(read_time(raw['released_at']))}"
    if times:
        lines["after"] = times
    show.facts(lines)
    print()


def _state(job: Json) -> str:
    if job["released_at"]:
        return "released"
    return "running" if job["node_count"] else "reserved"


def _where(job: Json) -> str:
    """How many nodes, and where they are with the images."""
    counts = ", ".join(
        f"{number} {state.lower().replace('_', ' ')}"
        for state, number in job["counts"].items()
        if number
    )
    return f"{job['node_count']}: {counts}" if counts else str(job["node_count"])


def _reason(node: Json) -> str:
    return str(node["failure"]["message"]) if node["failure"] else ""


def _count(job: Json, state: str) -> int:
    return int(job["counts"].get(state, 0))


def _some(number: int) -> str:
    return str(number) if number else ""


def _owner(job: Json) -> str:
    return "" if job["uid"] is None else users([job["uid"]])
