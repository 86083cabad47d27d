"""An image's bytes from the gateways, from any place on: a broken connection costs its time alone.

Whichever of the gateways answers gives them; all of them are told which very image is meant.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cli.errors import CliError, RefusedError, UnexpectedAnswerError, UnreachableError
from cli.gateway import Gateway, image_path

if TYPE_CHECKING:
    import http.client

PATIENCE: Final = 120.0
"""So long without a single new byte, and it is given up."""
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_PIECE: Final = 1 << 20
_TOO_MANY: Final = 429
_PLACE: Final = re.compile(r"bytes (\d{1,20})-")

Away = Callable[[float, str], None]


class RangesIgnoredError(CliError):
    """What stands between us and the gateway does not give parts."""

    code = "ranges_ignored"


@dataclass(frozen=True, slots=True)
class Offer:
    """An image that a gateway has described."""

    id: str
    system: str
    type: str
    reference: str
    size: int
    content_digest: str
    platform: str
    private: bool
    file: str | None


class Download:
    """Reads one image. `away` hears how long no byte has come, and why."""

    def __init__(self, gateway: Gateway, offer: Offer, away: Away) -> None:
        self._gateway = gateway
        self._offer = offer
        self._away = away
        self._path = f"{image_path(offer.id, offer.system)}/export/squashfs"

    def read(self, offset: int, count: int) -> bytes:
        """A part of it, whole."""
        return b"".join(self.pieces(offset, min(offset + count, self._offer.size)))

    def pieces(self, start: int, end: int | None = None) -> Iterator[bytes]:
        """All bytes from `start` on."""
        position, end = start, self._offer.size if end is None else end
        latest, pause = time.monotonic(), _FIRST_PAUSE
        while position < end:
            trouble: CliError | None = None
            try:
                with self._gateway.opened(self._path, self._headers(position, end)) as response:
                    self._check(response, position)
                    while position < end and (piece := response.read1(min(_PIECE, end - position))):
                        position += len(piece)
                        yield piece
                        latest, pause = time.monotonic(), _FIRST_PAUSE
            except (UnreachableError, UnexpectedAnswerError) as exc:
                # A proxy before gateways that start anew has words of its own, for a while.
                trouble = exc
            except RefusedError as exc:
                if exc.answered < 500 and exc.answered != _TOO_MANY:
                    raise
                trouble = exc
                pause = exc.retry_after or pause
            if position < end:
                silent = time.monotonic() - latest
                if silent > PATIENCE:
                    raise trouble or UnreachableError("connections break before a byte has come")
                self._away(silent, trouble.message if trouble else "the connection broke")
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _headers(self, start: int, end: int) -> dict[str, str]:
        return {
            "Accept": "application/octet-stream, application/problem+json",
            "If-Match": f'"{self._offer.content_digest}"',
            "Range": f"bytes={start}-{end - 1}",
        }

    def _check(self, response: "http.client.HTTPResponse", start: int) -> None:
        """What stands between may have its own mind about ranges."""
        said = response.headers.get("Content-Range", "")
        found = _PLACE.match(said)
        begin = int(found[1]) if found else 0
        if begin != start:
            raise RangesIgnoredError(
                f"the gateway, or what stands before it, gives bytes from {begin} on instead of "
                f"{start}: the operator must let Range requests through"
            )
