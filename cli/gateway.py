"""The REST API as the commands use it, over whichever of the gateways answers."""

import http.client
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from cli import http as wire
from cli.errors import RefusedError, UnreachableError, UsageError
from cli.http import Answer, Connect, Json
from shared.errors import InvalidReferenceError
from shared.reference import parse_reference

API: Final = "/api/v1"
TIMEOUT: Final = 30.0
SILENCE: Final = 45.0
"""A stream that says nothing for so long, not even a comment, is taken as broken."""
ONLY_SYSTEM: Final = "_"
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class PullWish:
    """The image that somebody wants, and whether even if the registry has nothing new."""

    reference: str
    system: str | None = None
    force: bool = False


class Gateway:
    """One or several gateways over one catalog; the one that answered last is asked first."""

    def __init__(self, urls: str) -> None:
        self._bases = [_base(url.strip()) for url in urls.split(",") if url.strip()]
        if not self._bases:
            raise UsageError("no gateway is named: give --url or set DRAY_URL")

    def request_pull(self, wish: PullWish) -> Answer:
        _check(wish.reference)
        body: Json = {"reference": wish.reference}
        if wish.system:
            body["system"] = wish.system
        if wish.force:
            body["force"] = True
        return self.call("POST", "/pulls", body=body)

    def pull(self, pull_id: str) -> Json:
        return self.call("GET", f"/pulls/{quote(pull_id, safe='')}").body

    def pull_events(self, pull_id: str) -> Iterator[Json]:
        """The views of a pull as it goes on; UnreachableError where the stream breaks."""
        base, connect = self._bases[0]
        path = f"{API}/pulls/{quote(pull_id, safe='')}/events"
        try:
            yield from wire.events(connect, path, SILENCE)
        except (OSError, http.client.HTTPException) as exc:
            self._bases.append(self._bases.pop(0))
            raise UnreachableError(f"the connection to {base} broke ({_why(exc)})") from exc

    def image(self, reference: str, system: str | None, itype: str = "docker") -> Json:
        _check(reference)
        where = f"{quote(system or ONLY_SYSTEM, safe='')}/{itype}/{quote(reference, safe='')}"
        return self.call("GET", f"/images/{where}").body

    def image_detail(self, image: str, system: str | None, *, by_id: bool) -> Json:
        """An image, by its id or its reference, with what its layers share."""
        if not by_id:
            _check(image)
        where = f"{quote(system or ONLY_SYSTEM, safe='')}/{'id' if by_id else 'docker'}"
        path = f"/images/{where}/{quote(image, safe='')}"
        return self.call("GET", path, query=_given(sharing="true")).body

    def images(self, system: str | None) -> Iterator[Json]:
        """Every READY image, page by page."""
        after: str | None = None
        while True:
            page = self.call("GET", "/images", query=_given(system=system, after=after, limit=PAGE))
            yield from page.body.get("items", ())
            after = page.body.get("next")
            if after is None:
                return

    def items(self, path: str, **query: str | None) -> list[Json]:
        """A list that is answered in one piece."""
        return list(self.call("GET", path, query=_given(**query)).body.get("items", ()))

    def replay(self, letter_id: str) -> None:
        self.call("POST", f"/admin/dead-letters/{quote(letter_id, safe='')}/replay")

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask each gateway in turn; every request is safe to repeat at the next."""
        target = f"{API}{path}" + (f"?{urlencode(query)}" if query else "")
        tried: list[str] = []
        for _ in range(len(self._bases)):
            base, connect = self._bases[0]
            try:
                return wire.call(connect, method, target, body, TIMEOUT)
            except RefusedError as exc:
                # One gateway's broken catalog connection need not be another's.
                if exc.answered < 500 or len(tried) == len(self._bases) - 1:
                    raise
                tried.append(f"{base} ({exc.message})")
            except (OSError, http.client.HTTPException) as exc:
                tried.append(f"{base} ({_why(exc)})")
            self._bases.append(self._bases.pop(0))
        raise UnreachableError(
            f"no gateway answers at {', '.join(tried)}\n"
            "Start one with `dray up`, or name yours with --url or DRAY_URL."
        )


def _check(reference: str) -> None:
    """What no gateway could understand is refused here: most of it cannot be put into a path."""
    try:
        parse_reference(reference)
    except InvalidReferenceError as exc:
        raise UsageError(exc.message) from exc


def _given(**query: str | int | None) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in query.items() if value is not None]


def _base(url: str) -> tuple[str, Connect]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in {"http", "https"} or not host or parts.path not in {"", "/"}:
        raise UsageError(f"{url!r} is no gateway's address: write it like http://127.0.0.1:7600")

    def connect(timeout: float) -> http.client.HTTPConnection:
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout)
        return http.client.HTTPConnection(host, port, timeout=timeout)

    return f"{parts.scheme}://{parts.netloc}", connect


def _why(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    strerror = exc.strerror if isinstance(exc, OSError) else None
    return strerror or str(exc) or type(exc).__name__
