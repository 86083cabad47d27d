"""The REST API as the commands use it, over whichever of the gateways answers."""

import http.client
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from cli import http as wire
from cli import proof
from cli.addresses import Address, addresses
from cli.defaults import LOCAL_GATEWAY
from cli.errors import RefusedError, UnreachableError, UsageError
from cli.http import Answer, Json
from shared.errors import InvalidReferenceError
from shared.imported import canonical, is_imported

API: Final = "/api/v1"
TIMEOUT: Final = 30.0
SILENCE: Final = 45.0
"""A stream that says nothing for so long, not even a comment, is taken as broken."""
PATIENCE: Final = 120.0
"""Many ranks of one user may ask at once, and all of them want an answer in the end."""
TOO_MANY: Final = 429
ONLY_SYSTEM: Final = "_"
PAGE: Final = 500
ID: Final = re.compile(r"[0-9a-f]{64}")
PART_OF_ID: Final = re.compile(r"[0-9a-f]{6,63}")
"""As tables show them; a reference may look so too."""


@dataclass(frozen=True, slots=True)
class PullWish:
    """The image that somebody wants, whether even if the registry has nothing new, and who else
    may use it if it is private; None leaves that as it is. `uid`: for whom, where not for us.
    """

    reference: str
    system: str | None = None
    force: bool = False
    uids: tuple[int, ...] | None = None
    gids: tuple[int, ...] | None = None
    uid: int | None = None


class Gateway:
    """One or several gateways over one catalog; the one that answered last is asked first."""

    def __init__(self, urls: str) -> None:
        self._bases = addresses(urls)
        usual = os.environ.get("DRAY_URL") or LOCAL_GATEWAY
        self.option = None if urls == usual else urls
        """What --url has to say for the same gateways, if it has to."""

    def request_pull(self, wish: PullWish) -> Answer:
        _check(wish.reference)
        body: Json = {"reference": wish.reference}
        if wish.system:
            body["system"] = wish.system
        if wish.force:
            body["force"] = True
        if wish.uids is not None:
            body["allowed_uids"] = wish.uids
        if wish.gids is not None:
            body["allowed_gids"] = wish.gids
        if wish.uid is not None:
            body["uid"] = wish.uid
        return self.call("POST", "/pulls", body=body)

    def pull(self, pull_id: str) -> Json:
        return self.call("GET", f"/pulls/{quote(pull_id, safe='')}").body

    def pull_events(self, pull_id: str) -> Iterator[Json]:
        """The views of a pull as it goes on; UnreachableError where the stream breaks."""
        for _, view in self._events(f"/pulls/{quote(pull_id, safe='')}/events"):
            yield view

    def live(self, system: str | None) -> Iterator[tuple[str, Json]]:
        """What changes at the site, as `GET /live` tells it; as above where it breaks."""
        return self._events("/live" + (f"?{urlencode({'system': system})}" if system else ""))

    def _events(self, path: str) -> Iterator[tuple[str, Json]]:
        base = self._bases[0]
        try:
            yield from wire.events(base.connect, f"{API}{path}", SILENCE, base.prove())
        except (OSError, http.client.HTTPException) as exc:
            self._bases.append(self._bases.pop(0))
            raise UnreachableError(f"the connection to {base.name} broke ({_why(exc)})") from exc

    @contextmanager
    def opened(self, path: str, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """A long answer of the gateway at hand; where that fails, the next one is at hand."""
        base = self._bases[0]
        try:
            given = {**headers, **base.prove()}
            with wire.opened(base.connect, f"{API}{path}", SILENCE, given) as response:
                yield response
        except (OSError, http.client.HTTPException) as exc:
            self._bases.append(self._bases.pop(0))
            raise UnreachableError(f"the connection to {base.name} broke ({_why(exc)})") from exc
        except RefusedError as exc:
            if exc.answered >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._bases.append(self._bases.pop(0))
            raise

    def image(self, reference: str, system: str | None) -> Json:
        return self.on_image("GET", reference, system).body

    def image_detail(self, image: str, system: str | None) -> Json:
        """An image with what its layers share."""
        return self.on_image("GET", image, system, query=_given(sharing="true")).body

    def on_image(
        self,
        method: str,
        image: str,
        system: str | None,
        below: str = "",
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask about an image, by its reference or its id."""
        path = f"{image_path(image, system)}{below}"
        try:
            return self.call(method, path, query=query, body=body)
        except RefusedError as exc:
            if exc.answered == HTTPStatus.NOT_FOUND and PART_OF_ID.fullmatch(image):
                exc.message += (
                    f"; if {image} begins an id, give the reference, or the whole id "
                    "(dray lookup -q REFERENCE)"
                )
            raise

    def images(self, system: str | None) -> Iterator[Json]:
        """Every READY image."""
        return self.pages("/images", {"system": system})

    def pages(
        self,
        path: str,
        query: Mapping[str, str | None],
        *,
        most: int | None = None,
        page: int = PAGE,
    ) -> Iterator[Json]:
        """A list of several pages, to its end or to the first so many."""
        left = sys.maxsize if most is None else most
        for answer in self.whole_pages(path, query, limit=min(page, left)):
            for item in answer.get("items", ()):
                if left == 0:
                    return
                left -= 1
                yield item
            if left == 0:
                return

    def whole_pages(
        self, path: str, query: Mapping[str, str | None], *, limit: int = PAGE
    ) -> Iterator[Json]:
        after: str | None = None
        while True:
            asked = _given(**query, after=after, limit=limit)
            page = self.call("GET", path, query=asked).body
            yield page
            after = page.get("next")
            if after is None:
                return

    def items(self, path: str, **query: str | None) -> list[Json]:
        """A list that is answered in one piece."""
        return list(self.call("GET", path, query=_given(**query)).body.get("items", ()))

    def check_private(self) -> None:
        """Before a password is sent: an error unless nobody can read along on the way."""
        for base in self._bases:
            parts = urlsplit(base.name)
            if parts.scheme == "http" and not proof.loopback(parts.hostname or ""):
                raise UsageError(
                    f"a password would travel to {base.name} readable for everybody on the way: "
                    "name the gateway with https://, or do this on its own machine"
                )

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
            base = self._bases[0]
            try:
                return _patiently(base, method, target, body)
            except RefusedError as exc:
                # One gateway's broken catalog connection need not be another's.
                if exc.answered < 500 or len(tried) == len(self._bases) - 1:
                    raise
                tried.append(f"{base.name} ({exc.message})")
            except (OSError, http.client.HTTPException) as exc:
                tried.append(f"{base.name} ({_why(exc)})")
            self._bases.append(self._bases.pop(0))
        raise UnreachableError(
            f"no gateway answers at {', '.join(tried)}\n"
            "Start one with `dray up`, or name yours with --url or DRAY_URL."
        )


def image_path(image: str, system: str | None) -> str:
    """Where the API has an image, by its reference or its id."""
    kind = "id" if ID.fullmatch(image) else "custom" if is_imported(image) else "docker"
    if kind != "id":
        _check(image)
    return f"/images/{quote(system or ONLY_SYSTEM, safe='')}/{kind}/{quote(image, safe='')}"


def _check(reference: str) -> None:
    """What no gateway could understand is refused here: most of it cannot be put into a path."""
    try:
        canonical(reference)
    except InvalidReferenceError as exc:
        raise UsageError(exc.message) from exc


def _given(**query: str | int | None) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in query.items() if value is not None]


def _patiently(base: Address, method: str, target: str, body: Mapping[str, Any] | None) -> Answer:
    """One request; of a gateway that wants us to slow down, again when it says."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return wire.call(base.connect, method, target, body, TIMEOUT, base.prove())
        except RefusedError as exc:
            wait = exc.retry_after
            if exc.answered != TOO_MANY or wait is None or time.monotonic() + wait > end:
                raise
            time.sleep(wait)


def _why(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    strerror = exc.strerror if isinstance(exc, OSError) else None
    return strerror or str(exc) or type(exc).__name__
