"""What `dray top` draws: the verdict, what keeps users waiting, pulls, queues and jobs.

The most pressing comes first, so that what a small screen leaves out matters least. Whatever others
have written is plain text.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cli import show
from cli.answers import Pull, read_pull, read_time, reading
from cli.http import Json
from cli.site_now import STALE_SECONDS, SiteNow, Snapshot
from shared.states import State

TONES: Final = {
    "INIT": "bright_black",
    "PULLING": "cyan",
    "EXAMINATION": "cyan",
    "CONVERSION": "blue",
    "TRANSFER": "magenta",
    "READY": "green",
    "FAILURE": "red",
}
_LEVELS: Final = {"critical": "bold red", "warning": "yellow"}
_MOST_WORRIES: Final = 5
_LEAST_ROWS: Final = 3
_BAR: Final = 14
_OLDEST_FROM: Final = 60
"""Columns of the screen; on fewer, the age of a queue's events makes room for its name."""


def frame(site: SiteNow, width: int, rows: int | None) -> RenderableType:
    """All of it; `rows`: of the screen, None where there is no end to it."""
    seen = site.now()
    with reading("the site"):
        pulls = sorted(map(read_pull, seen.pulls), key=_place)
        top: list[RenderableType] = [_title(seen, width), *_worries(seen), _stages(seen)]
        left = None if rows is None else rows - len(top) - 4
        jobs = (seen.jobs or ())[: None if left is None else max(_LEAST_ROWS, left // 3)]
        queues = seen.overview.get("queues") or []
        bottom: list[RenderableType] = []
        if jobs:
            bottom += [_heading("jobs"), _jobs(jobs)]
        if queues:
            bottom += [_heading("queues"), _queues(queues, width)]
        # Each table has a heading, and a line that names its columns.
        taken = sum(2 + len(shown) for shown in (jobs, queues) if shown)
        room = None if left is None else max(_LEAST_ROWS, left - taken)
        return Group(*top, _heading("pulls"), _pulls(pulls, room, width), *bottom)


def _title(seen: Snapshot, width: int) -> Text:
    line = Text("dray ", style="bold")
    worries = seen.overview.get("worries", [])
    waiting = sum(int(stage["pulls"]) for stage in seen.overview.get("stages", []))
    if any(each.get("level") == "critical" for each in worries):
        critical = "users are waiting for what does not come" if waiting else "users cannot pull"
        line.append(critical, style="bold red")
    elif waiting:
        line.append(f"{show.count(waiting, 'pull')} under way", style="bold")
    elif worries:
        line.append("nobody is waiting, but something needs a look", style="bold yellow")
    else:
        line.append("nobody is waiting", style="bold green")
    if seen.age > STALE_SECONDS:
        line.append(f"  stale for {show.duration(seen.age)}: {_one_line(seen.trouble)}", "bold red")
    elif seen.trouble:
        line.append("  live by asking now and then", style="yellow")
    clock = f"{datetime.now(UTC).astimezone():%H:%M:%S}"
    line.truncate(max(8, width - len(clock) - 1), overflow="ellipsis", pad=True)
    return line.append(f" {clock}", style="dim")


def _worries(seen: Snapshot) -> list[RenderableType]:
    worries = seen.overview.get("worries", [])
    lines: list[RenderableType] = [
        Text(f"▲ {_one_line(each['message'])}", style=_LEVELS.get(each["level"], ""))
        for each in worries[:_MOST_WORRIES]
    ]
    more = len(worries) - len(lines)
    return [*lines, Text(f"  and {more} more", style="yellow")] if more > 0 else lines


def _stages(seen: Snapshot) -> Text:
    line = Text()
    for stage in seen.overview.get("stages", []):
        name, pulls = str(stage["state"]), int(stage["pulls"])
        line.append(f"{name} ", style=TONES.get(name, ""))
        line.append(str(pulls), style="bold" if pulls else "dim")
        if pulls:
            line.append(f" ({show.duration(float(stage['oldest_seconds']))})", style="dim")
        line.append("  ")
    failed = int(seen.overview.get("failed", 0))
    if failed:
        line.append(f"FAILURE {failed}  ", style="red")
    letters = seen.overview.get("dead_letters")
    if letters:
        line.append(f"dead letters {letters}  ", style="red")
    nodes = seen.overview.get("nodes")
    if nodes:
        line.append(f"nodes {nodes['alive']:,}", style="green")
        if nodes["lost"]:
            line.append(f" + {nodes['lost']:,} lost", style="red")
    return line


def _heading(title: str) -> RenderableType:
    return Rule(Text(title, style="bold"), align="left", style="dim")


def _table() -> Table:
    return Table(box=None, expand=True, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")


def _pulls(pulls: Sequence[Pull], room: int | None, width: int) -> RenderableType:
    if not pulls:
        return Text("nobody waits: `dray pull debian:12` would be the first", style="dim")
    table = _table()
    table.add_column("state", no_wrap=True)
    wide = width >= 100
    if wide:
        table.add_column("", width=_BAR)
    table.add_column("bytes" if wide else "", justify="right", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    table.add_column("by", no_wrap=True, max_width=12)
    table.add_column("image, and what it waits for", ratio=1, no_wrap=True, overflow="ellipsis")
    shown = pulls if room is None or len(pulls) <= room else pulls[: room - 1]
    for pull in shown:
        progress = pull.progress
        moving = progress is not None and progress.total > 0 and pull.state.in_flight
        bar: RenderableType = ""
        amount = ""
        if progress is not None and moving:
            bar = ProgressBar(total=progress.total, completed=progress.done, width=_BAR)
            part = f"{100 * progress.done // progress.total} %"
            whole = f"{show.size(progress.done)}/{show.size(progress.total)}"
            amount = whole if wide else part
        cells = [Text(pull.state, style=TONES.get(pull.state, "")), *([bar] if wide else [])]
        what = Text(show.short_reference(_one_line(pull.reference)))
        waits = (progress.waiting if progress else None) or pull.trouble
        if waits:
            what.append(f"  {_one_line(waits)}", style="red" if pull.ended else "yellow")
        by = Text(show.plain(pull.requested_by))
        table.add_row(*cells, amount, _short_age(pull.requested_at), by, what)
    if len(shown) < len(pulls):
        table.add_row(Text(f"… {len(pulls) - len(shown)} more", style="dim"))
    return table


def _jobs(jobs: Sequence[Json]) -> Table:
    table = _table()
    for name in ("job", "nodes", "ready", "waiting", "failed", "lost", "announced"):
        table.add_column(name, justify="left" if name == "job" else "right", no_wrap=True)
    table.add_column("nodes' names", ratio=1, no_wrap=True, overflow="ellipsis")
    for job in jobs:
        counts = {str(name): int(count) for name, count in job["counts"].items()}
        table.add_row(
            Text(show.plain(job["job_id"])),
            f"{int(job['node_count']):,}",
            _count(counts.get("STAGED", 0) + counts.get("IN_PLACE", 0), "green"),
            _count(counts.get("PENDING", 0), "yellow"),
            _count(counts.get("FAILED", 0), "red"),
            _count(counts.get("LOST", 0), "red"),
            _short_age(read_time(job["announced_at"])),
            Text(_one_line(job["hostlist"]), style="dim"),
        )
    return table


def _queues(queues: Sequence[Json], width: int) -> Table:
    table = _table()
    # Numbers stand beside their names, and names that differ at their ends are whole.
    table.expand = False
    table.add_column("queue", no_wrap=True)
    names = (
        ("waiting", "consumers", "oldest") if width >= _OLDEST_FROM else ("waiting", "consumers")
    )
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for queue in queues:
        oldest, waiting = queue["oldest_seconds"], int(queue["waiting"])
        consumers = int(queue["consumers"])
        cells = (
            _count(waiting, "yellow"),
            Text(str(consumers), style="" if consumers else "bold red"),
            show.duration(float(oldest)) if oldest and waiting else "",
        )
        table.add_row(Text(show.plain(queue["name"])), *cells[: len(names)])
    return table


def _count(number: int, style: str) -> Text:
    return Text(f"{number:,}", style=style if number else "dim")


def _short_age(since: datetime) -> str:
    return show.age(since).removesuffix(" ago")


def _one_line(text: object) -> str:
    return " ".join(show.plain(text or "").split())


def _place(pull: Pull) -> tuple[bool, datetime]:
    """What is under way before what has failed; who has waited longest first."""
    return pull.state is State.FAILURE, pull.requested_at
