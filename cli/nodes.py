"""The machines and what runs on them: `dray nodes` and `dray jobs`."""

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

SYSTEM = Column("SYSTEM", worth=4)
JOBS_PAGE: Final = 200


def nodes(gateway: Gateway, style: Style = PLAIN, *, json: bool) -> int:
    found = gateway.items("/nodes")
    if json:
        show.document({"items": found})
        return 0
    with reading("the nodes"):
        rows = [
            (
                str(node["node"]),
                str(node["system"]),
                str(node["kernel"]),
                str(node["mounter"]),
                ", ".join(map(str, node["codecs"])),
                str(node["mounts"]),
                show.age(read_time(node["seen_at"])),
            )
            for node in found
        ]
    columns = (
        Column("NODE", worth=9),
        SYSTEM,
        Column("KERNEL", worth=1, elastic=True),
        Column("MOUNTS WITH", worth=5),
        Column("READS", worth=3),
        Column("MOUNTS", worth=6, right=True),
        Column("SEEN", worth=8),
    )
    hint = "No agent has reported yet: it does so within its first heartbeat."
    table(columns, rows, hint, style)
    return 0


@dataclass(frozen=True, slots=True)
class JobsWish:
    """Which jobs somebody wants to see, the newest first."""

    system: str | None
    user: str | None
    running: bool
    limit: int


def jobs(gateway: Gateway, wish: JobsWish, style: Style = PLAIN, *, json: bool) -> int:
    asked = {
        "system": wish.system,
        "uid": str(user_ids([wish.user])[0]) if wish.user else None,
        "running": "true" if wish.running else None,
    }
    found = list(gateway.pages("/jobs", asked, most=wish.limit, page=JOBS_PAGE))
    if json:
        show.document({"items": found})
        return 0
    with reading("the jobs"):
        rows = [
            (
                str(job["job_id"]),
                str(job["system"]),
                _where(job),
                str(len(job["images"])),
                _owner(job),
                show.age(read_time(job["announced_at"])),
                "released" if job["released_at"] else "running",
            )
            for job in found
        ]
    columns = (
        Column("JOB", worth=9),
        SYSTEM,
        Column("NODES", worth=8, elastic=True),
        Column("IMAGES", worth=2, right=True),
        Column("OF", worth=5),
        Column("ANNOUNCED", worth=3),
        Column("STATE", worth=6),
    )
    table(columns, rows, "No job has been announced, or none of yours.", style)
    return 0


def job(gateway: Gateway, job_id: str, style: Style = PLAIN, *, all_nodes: bool, json: bool) -> int:
    """One job; 1 if nodes of it have failed."""
    raw = _job(gateway, job_id, all_nodes=all_nodes)
    with reading("a job"):
        failed = int(raw["counts"].get("FAILED", 0))
        if json:
            show.document(raw)
            return EXIT_FAILED if failed else 0
        if style == PLAIN:
            _describe(raw)
        rows = [
            (
                str(node["node"]),
                str(node["state"]),
                "" if node["seconds"] is None else show.duration(node["seconds"]),
                str(node["failure"]["message"]) if node["failure"] else "",
            )
            for node in raw["nodes"]
        ]
        columns = (
            Column("NODE", worth=9),
            Column("STATE", worth=8, paint=state_colour),
            Column("TOOK", worth=2, right=True),
            Column("REASON", worth=7, elastic=True),
        )
        if table(columns, rows, "All of its nodes have the images.", style) and style == PLAIN:
            more = raw["node_count"] - len(rows)
            if more > 0 and not all_nodes:
                print(f"\n{show.count(more, 'more node')}: --all-nodes shows them.")
    return EXIT_FAILED if failed else 0


def _job(gateway: Gateway, job_id: str, *, all_nodes: bool) -> Json:
    path = f"/jobs/{quote(job_id, safe='')}"
    if not all_nodes:
        return gateway.call("GET", path).body
    pages = gateway.whole_pages(path, {"nodes": "all"})
    raw = next(pages)
    with reading("a job"):
        for page in pages:
            raw["nodes"] += page["nodes"]
    raw.pop("next", None)
    return raw


def _describe(raw: Json) -> None:
    announced = read_time(raw["announced_at"])
    lines = {
        "job": str(raw["job_id"]),
        "system": str(raw["system"]),
        "of": _owner(raw),
        "announced": f"{announced:%Y-%m-%d %H:%M:%S %Z} by {raw['announced_by']}",
        "released": show.age(read_time(raw["released_at"])) if raw["released_at"] else "no",
        "images": "\n".join(str(image) for image in raw["images"]),
        "nodes": _where(raw),
    }
    show.facts(lines)
    print()


def _where(job: Json) -> str:
    """How many nodes, and where they are with the images."""
    counts = ", ".join(f"{number} {state.lower()}" for state, number in job["counts"].items())
    return f"{job['node_count']}: {counts}" if counts else str(job["node_count"])


def _owner(job: Json) -> str:
    return "" if job["uid"] is None else users([job["uid"]])
