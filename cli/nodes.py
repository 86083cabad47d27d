"""The machines: `dray nodes`."""

from dataclasses import dataclass

from cli import show
from cli.answers import read_time, reading
from cli.gateway import Gateway
from cli.http import Json
from cli.tables import PLAIN, Column, Style, state_colour, table


@dataclass(frozen=True, slots=True)
class NodesWish:
    """Which nodes somebody wants to see; `hostlist` as Slurm writes it."""

    system: str | None = None
    state: str | None = None
    hostlist: str | None = None


ALL = NodesWish()


def nodes(gateway: Gateway, wish: NodesWish = ALL, style: Style = PLAIN, *, json: bool) -> int:
    asked = {"system": wish.system, "state": wish.state, "nodes": wish.hostlist}
    found = gateway.pages("/nodes", asked)
    if json:
        show.items(found)
        return 0
    with reading("the nodes"):
        rows = [_row(node) for node in found]
    columns = (
        Column("NODE", worth=9),
        Column("SYSTEM", worth=4),
        Column("STATE", worth=8, paint=state_colour),
        Column("SEEN", worth=7),
        Column("MOUNTS WITH", worth=5),
        Column("READS", worth=3),
        Column("MOUNTS", worth=6, right=True),
        Column("CACHE", worth=4, right=True),
        Column("KERNEL", worth=1, elastic=True),
        Column("VERSION", worth=2),
    )
    hint = "No agent has reported yet: it does so within its first heartbeat."
    if wish != ALL:
        hint = "There is no such node."
    table(columns, rows, hint, style)
    return 0


def _row(node: Json) -> tuple[str, ...]:
    capacity = node.get("capacity") or {}
    return (
        str(node["node"]),
        str(node["system"]),
        "LOST" if node.get("lost") else "ALIVE",
        show.age(read_time(node["seen_at"])),
        str(node["mounter"]),
        ", ".join(map(str, node["codecs"])),
        str(node["mounts"]),
        _cache(capacity.get("cache")),
        str(node["kernel"]),
        str(capacity.get("version", "")),
    )


def _cache(cache: Json | None) -> str:
    """What of it is in use."""
    if cache is None:
        return ""
    return f"{show.size(cache['used_bytes'])} of {show.size(cache['max_bytes'])}"
