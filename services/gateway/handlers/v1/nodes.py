"""The nodes' agents."""

import asyncio
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import Field

from services.gateway.cursors import After, Cursors
from services.gateway.jobs.nodes import Nodes
from services.gateway.pulls import Pulls
from services.gateway.views import node_view
from shared.api import API, NodesView
from shared.errors import UnknownSystemError
from shared.hostlist import HostlistError, expand
from shared.http.answers import answer, read_query
from shared.http.operation import operation
from shared.models import Strict, SystemName

NODES = "nodes"
MOST_NAMES: Final = 10_000
"""Of a hostlist in a question: a few letters of anybody's stand for very many names."""


class NodesQuery(Strict):
    """GET /nodes. `nodes` is a hostlist as Slurm writes it, of 10,000 names at most: of these,
    those that are known.
    """

    system: SystemName | None = None
    state: Literal["any", "alive", "lost"] = "any"
    nodes: Annotated[str, Field(max_length=4096)] | None = None
    after: After = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class NodeHandlers:
    """What is known of the machines."""

    def __init__(self, nodes: Nodes, pulls: Pulls, cursors: Cursors) -> None:
        self._nodes = nodes
        self._pulls = pulls
        self._cursors = cursors

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/nodes", self.list_nodes)]

    @operation(
        query=NodesQuery, gives={200: NodesView}, problems=(UnknownSystemError, HostlistError)
    )
    async def list_nodes(self, request: web.Request) -> web.Response:
        """The nodes' agents, as they last described themselves, by name."""
        query = read_query(request, NodesQuery)
        systems = self._pulls.systems(query.system)
        lost = None if query.state == "any" else query.state == "lost"
        after = None if query.after is None else self._cursors.open(NODES, query.after)
        if query.nodes is None:
            records = await self._nodes.page(systems, after, query.limit + 1, lost=lost)
            page, last = records[: query.limit], len(records) <= query.limit
            place = page[-1].key if page else ""
        else:
            # Names that nobody knows count as well: a page is so many names, not so many nodes.
            names = await asyncio.to_thread(_beyond, query.nodes, after)
            asked, last = names[: query.limit], len(names) <= query.limit
            page = await self._nodes.named(systems, asked, lost=lost)
            place = asked[-1] if asked else ""
        following = None if last else self._cursors.seal(NODES, place)
        return answer(NodesView(items=tuple(map(node_view, page)), next=following))


def _beyond(hostlist: str, after: str | None) -> list[str]:
    return sorted(node for node in expand(hostlist, MOST_NAMES) if after is None or node > after)
