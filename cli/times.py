"""When what happened to a job, in one line."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from cli import show
from cli.answers import read_time, reading
from cli.errors import RefusedError
from cli.gateway import Gateway
from cli.http import Json

WORDS: Final[Mapping[str, str]] = {
    "first_node": "first node",
    "half_of_nodes": "half of them",
    "most_nodes": "99 %",
    "all_nodes": "all nodes",
    "first_rank": "first rank",
}
NEEDS_NODES: Final = {"half_of_nodes": 2, "most_nodes": 100, "all_nodes": 2}
"""Of fewer nodes they say nothing that another word has not said."""


def times_of(gateway: Gateway, path: str, nodes: int) -> str:
    """How long after its announcement; nothing where that is not known (yet)."""
    try:
        told = gateway.call("GET", f"{path}/timeline").body
    except RefusedError as exc:
        if exc.answered != HTTPStatus.NOT_FOUND:  # an earlier version's gateway
            raise
        return ""
    with reading("a time line"):
        return _line(told, nodes)


def _line(told: Json, nodes: int) -> str:
    at = {str(mark["moment"]): read_time(mark["at"]) for mark in told["marks"]}
    announced = at.get("announced")
    if announced is None:
        return ""
    return ", ".join(
        f"{WORDS[moment]} {show.duration(max(0.0, (when - announced).total_seconds()))}"
        for moment, when in at.items()
        if moment in WORDS and nodes >= NEEDS_NODES.get(moment, 1)
    )
