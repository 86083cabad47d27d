"""The grid of a system's nodes, kept true in memory while somebody asks for it now and then.

Ten thousand nodes speak twice a minute, and mostly say nothing new: what this gateway hears is
noted as it is written, and what others heard is looked for when somebody asks.
"""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from services.gateway.live.polled import PAGE, Polled, Rounds
from services.gateway.lookups import etag_of
from shared.api import NodeGrid
from shared.catalog.interface import Catalog, Changed, PendingEvent
from shared.catalog.records import NodeRecord, Record
from shared.hostlist import expand, fold
from shared.models import Bytes, SystemName, Tolerant

FRESH_SECONDS: Final = 2.0
LINGER_SECONDS: Final = 60.0
FILL_SECONDS: Final = 600.0
"""How often all nodes are read, for what no order of changes tells: removals."""
_ALIVE, _BUSY, _LOST = b"ABL"


class NodeOutline(Tolerant):
    """What is read of a node."""

    version: int
    system: SystemName
    mounts: Bytes
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A grid, and of which state of its nodes."""

    names: int
    letters: int
    hostlist: str
    order: tuple[str, ...]
    body: bytes
    etag: str


@dataclass(eq=False, slots=True)
class _System:
    """The nodes of one system, by name; the numbers grow with what changes."""

    codes: dict[str, int]
    names: int = 0
    letters: int = 0
    rendered: _Rendered | None = None


class NodeGrids:
    """Grids by system."""

    def __init__(self, catalog: Catalog) -> None:
        self._nodes = catalog.nodes
        self._polled = Polled(catalog.nodes, NodeOutline, self._wants, self._note)
        self._rounds = Rounds(self._polled.look)
        self._systems = _systems()
        self._known: dict[str, tuple[int, str]] = {}
        """Of each node the version, and its system."""
        self._filled_at: float | None = None
        self._one_at_a_time = asyncio.Lock()
        self._leaving: asyncio.TimerHandle | None = None
        catalog.listen(self._changed)

    async def stop(self) -> None:
        await self._rounds.stop()
        self._forget()

    def __len__(self) -> int:
        """How many nodes are kept."""
        return len(self._known)

    async def grid(self, system: str) -> tuple[bytes, str]:
        """As JSON, with its ETag."""
        if self._leaving is not None:
            self._leaving.cancel()
        loop = asyncio.get_running_loop()
        self._leaving = loop.call_later(LINGER_SECONDS, self._forget)
        async with self._one_at_a_time:
            now = time.monotonic()
            if self._filled_at is None:
                await self._polled.begin()
            if self._filled_at is None or now - self._filled_at > FILL_SECONDS:
                self._filled_at = now
                await self._fill()
        await self._rounds.within(FRESH_SECONDS)
        async with self._one_at_a_time:
            return await self._rendered(system)

    async def _rendered(self, system: str) -> tuple[bytes, str]:
        nodes = self._systems[system]
        before = nodes.rendered
        if before is None or (before.names, before.letters) != (nodes.names, nodes.letters):
            before = nodes.rendered = await asyncio.to_thread(_render, system, nodes)
        return before.body, before.etag

    async def _fill(self) -> None:
        gone = set(self._known)
        after: str | None = None
        while page := await self._nodes.outlines(NodeOutline, after=after, limit=PAGE):
            for key, node in page:
                self._note(key, node)
                gone.discard(key)
            after = page[-1][0]
        for name in gone:
            self._leave(name)

    def _forget(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._filled_at = None
        self._known = {}
        self._systems = _systems()

    def _changed(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        if isinstance(record, NodeRecord) and self._filled_at is not None:
            self._note(record.key, record)

    def _wants(self, change: Changed) -> bool:
        known = self._known.get(change.key)
        return known is None or known[0] != change.version

    def _note(self, name: str, node: NodeOutline | NodeRecord) -> None:
        known = self._known.get(name)
        if known is not None and known[0] >= node.version:
            return
        if known is not None and known[1] != node.system:
            self._leave(name)
        self._known[name] = node.version, node.system
        system = self._systems[node.system]
        code = _LOST if node.lost else _BUSY if node.mounts else _ALIVE
        before = system.codes.get(name)
        system.codes[name] = code
        system.names += before is None
        system.letters += before != code

    def _leave(self, name: str) -> None:
        _, system = self._known.pop(name)
        nodes = self._systems[system]
        del nodes.codes[name]
        nodes.names += 1


def _systems() -> defaultdict[str, _System]:
    return defaultdict(lambda: _System({}))


def _render(system: str, nodes: _System) -> _Rendered:
    """In a thread, while nodes go on to change: the numbers are taken first."""
    before, names, letters = nodes.rendered, nodes.names, nodes.letters
    if before is not None and before.names == names:
        hostlist, order = before.hostlist, before.order
    else:
        known = list(nodes.codes)
        hostlist = fold(known)
        order = expand(hostlist, len(known)) if known else ()
    codes = nodes.codes
    row = bytes(codes.get(name, _LOST) for name in order)
    body = NodeGrid(system=system, hostlist=hostlist, letters=row.decode()).model_dump_json()
    return _Rendered(names, letters, hostlist, order, body.encode(), etag_of(body.encode()))
