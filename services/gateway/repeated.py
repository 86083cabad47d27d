"""Answers to lookups that were asked before, by the path as it was sent.

The ranks of a job and the nodes of a system ask for the same few images, again and again. What the
path means, who may have the image and what is said of it was found out the first time; it holds for
as long as the directory has the very same record for the reference. Only what anybody may use is
kept, so that it does not matter who asks; whether they may ask at all is not decided here.
"""

from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from services.gateway.directory import Entry
from services.gateway.feed import ChangeFeed
from services.gateway.measuring import Kind, kind_of
from shared.http.ready import ReadyAnswer, ready

MOST_BYTES: Final = 64 << 20
_OVERHEAD: Final = 700


@dataclass(frozen=True, slots=True)
class Repeated:
    """What one path was answered with."""

    entry: Entry
    answer: ReadyAnswer
    kind: Kind
    size: int


class RepeatedLookups:
    """What is known to be the answer; what was kept first goes first."""

    def __init__(self, feed: ChangeFeed, most_bytes: int = MOST_BYTES) -> None:
        self._feed = feed
        self._directory = feed.directory
        self._most = most_bytes
        self._kept: dict[str, Repeated] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, request: web.Request) -> Repeated | None:
        """The answer to this request, if it still is and if nothing about the request is unusual.

        Neither waits nor raises, nor leaves a trace: the usual way is open to any other request.
        """
        known = self._kept.get(request.raw_path)
        if known is None or request.method != hdrs.METH_GET or not self._feed.is_fresh:
            return None
        if _is_unusual(request):
            return None
        if self._stands_alone(known.entry):
            return known
        self._drop(request.raw_path)
        return None

    def keep(self, request: web.Request, entry: Entry, response: web.Response) -> None:
        """`response` was made of this version of the record that the path names by its reference.

        Called before anything else is waited for, so that no other version can have come.
        """
        path = request.raw_path
        if request.method != hdrs.METH_GET or response.status != 200 or "?" in path:
            return
        if not path.startswith("/") or entry.private or not self._stands_alone(entry):
            return
        answer = ready(response)
        size = len(path) + len(answer.head) + len(answer.body) + _OVERHEAD
        self._drop(path)
        self._kept[path] = Repeated(entry, answer, kind_of(request, response.status), size)
        self.size += size
        while self.size > self._most:
            self._drop(next(iter(self._kept)))

    def _stands_alone(self, entry: Entry) -> bool:
        """Whether its reference means this record as it was, and no other, to whoever asks."""
        named = self._directory.named(entry.system, entry.itype, entry.reference)
        return len(named) == 1 and named[0] is entry

    def _drop(self, path: str) -> None:
        if (dropped := self._kept.pop(path, None)) is not None:
            self.size -= dropped.size


def _is_unusual(request: web.Request) -> bool:
    """Whether its answer is another one, or is sent in another way."""
    headers = request.headers
    if hdrs.IF_NONE_MATCH in headers or hdrs.EXPECT in headers or hdrs.UPGRADE in headers:
        return True
    return not request.keep_alive or request.version != HttpVersion11
