"""Sends one request and does not give up early: redirects, busy registries, broken connections.

Redirects are followed here and not by aiohttp, because an Authorization header must never reach
another host (blob stores are other hosts), and an encrypted request must stay encrypted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from yarl import URL

from services.converter import measuring
from services.converter.registry.endpoint import Ways
from services.converter.registry.errors import (
    ImageLimitError,
    RegistryBusyError,
    RegistryConnectionLostError,
    RegistryProtocolError,
    RegistryTimeoutError,
)
from services.converter.registry.failures import translated
from services.converter.registry.neighbours import refuse_neighbours
from services.converter.registry.pace import Pace
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.waiting import waiting_for

MAX_REDIRECTS: Final = 5
MAX_WAIT: Final = 86_400.0
READ_BUFFER: Final = 256 * 1024

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TOO_MANY_REQUESTS = 429
_BROKEN_INSIDE = 500
_BUSY = frozenset({_TOO_MANY_REQUESTS, _BROKEN_INSIDE, 502, 503, 504})
BROKEN = (RegistryConnectionLostError, RegistryTimeoutError)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one step may take, and how often and how slowly it is tried again (seconds).

    A registry that says when to come back gets more time and more attempts than one that is
    broken, but never as much as it likes; an answer that trickles counts as broken off.
    """

    connect: float = 15.0
    answer: float = 120.0
    silence: float = 60.0
    window: float = 60.0
    least_rate: int = 1024
    attempts: int = 6
    busy: float = 300.0
    busy_answers: int = 20
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def wait(self, failures: int) -> float:
        """The pause after so many failures in a row: it doubles, and no two clients agree."""
        longest = min(self.longest_wait, self.first_wait * 2.0 ** min(failures - 1, 16))
        return longest * random.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `authorization` goes to this URL's origin and nowhere else, a form nowhere."""

    method: str
    url: URL
    headers: dict[str, str] = field(default_factory=dict)
    authorization: str | None = field(default=None, repr=False)
    form: dict[str, str] | None = field(default=None, repr=False)


def open_session() -> aiohttp.ClientSession:
    """A session fit for registries: no cookies that one user's pull could leave for another's.

    As many connections as there are pulls and layers at a time: waiting for one would look like a
    registry that does not answer.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class Transport:
    """Requests over one session, on one registry's ways."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        ways: Ways,
        patience: Patience,
    ) -> None:
        self._http = http
        self._ways = ways
        self._patience = patience

    async def send(self, request: Request, deadline: Deadline) -> aiohttp.ClientResponse:
        """The first answer that is neither a redirect nor "later". The caller releases it.

        A broken connection is the caller's to repair: only he knows where to go on.
        """
        failures = 0
        patient_until = deadline.sooner(self._patience.busy)
        while True:
            failures += 1
            response = await self._follow(request, deadline)
            if response.status not in _BUSY:
                return response
            response.release()
            asked = retry_after(response.headers.get("Retry-After", ""))
            busy = _busy(response, asked)
            # A registry that names a time, or counts requests, may answer; others may be broken.
            told_to_wait = asked is not None or response.status == _TOO_MANY_REQUESTS
            attempts = self._patience.busy_answers if told_to_wait else self._patience.attempts
            if failures >= attempts:
                raise busy
            await self.pause(failures, patient_until, busy, at_least=asked or 0.0)

    async def read_whole(
        self,
        opened: Callable[[], Awaitable[aiohttp.ClientResponse]],
        limit: int,
        deadline: Deadline,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """An answer with all of its small body, asked for again when it breaks off."""
        failures = 0
        while True:
            try:
                response = await opened()
                return response, await self.read_bounded(response, limit, deadline)
            except BROKEN as exc:
                failures += 1
                if failures >= self._patience.attempts:
                    raise
                await self.pause(failures, deadline, exc)

    async def pause(
        self, failures: int, deadline: Deadline, reason: Exception, *, at_least: float = 0.0
    ) -> None:
        """Wait before the next attempt; raise `reason` at once if the time would not suffice."""
        wait = at_least + self._patience.wait(failures)
        if wait >= deadline.remaining():
            raise reason
        with waiting_for(_waiting(reason, wait)):
            await asyncio.sleep(wait)
        measuring.REGISTRY_WAITS.inc(wait)

    def pace(self, response: aiohttp.ClientResponse) -> Pace:
        return Pace(response.url.host, self._patience.window, self._patience.least_rate)

    async def read_bounded(
        self, response: aiohttp.ClientResponse, limit: int, deadline: Deadline
    ) -> bytes:
        """The whole body, which must be small. Releases the answer."""
        host = response.url.host
        too_large = f"{host} sends a document of more than {limit} bytes"
        body = bytearray()
        pace = self.pace(response)
        try:
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise RegistryProtocolError(f"{host} compresses an answer although asked not to")
            if (response.content_length or 0) > limit:
                raise ImageLimitError(too_large)
            while piece := await read_piece(response, limit + 1, pace, deadline):
                body += piece
                if len(body) > limit:
                    raise ImageLimitError(too_large)
        finally:
            response.release()
        return bytes(body)

    async def _follow(self, request: Request, deadline: Deadline) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._once(request, deadline)
            if response.status not in _REDIRECTS:
                return response
            response.release()
            origin = request.url
            request = _redirected(request, response.headers.get("Location", ""))
            await self.refuse_neighbours(origin, request.url, deadline)
        raise RegistryProtocolError(
            f"{request.url.host} redirects more than {MAX_REDIRECTS} times: "
            "tell the registry's administrator"
        )

    async def refuse_neighbours(self, origin: URL, target: URL, deadline: Deadline) -> None:
        by_proxy = self._ways.proxies.leading_to(target) is not None
        await refuse_neighbours(origin, target, deadline, by_proxy=by_proxy)

    async def _once(self, request: Request, deadline: Deadline) -> aiohttp.ClientResponse:
        try:
            response = await self._asked(request, deadline)
        except DrayError:
            measuring.REGISTRY_REQUESTS.labels("unanswered").inc()
            raise
        measuring.answered(response.status)
        return response

    async def _asked(self, request: Request, deadline: Deadline) -> aiohttp.ClientResponse:
        headers = {"Accept-Encoding": "identity", **request.headers}
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._patience.connect, sock_read=self._patience.silence
        )
        proxy = self._ways.proxies.leading_to(request.url)
        async with deadline.bound(f"asking {request.url.host}"):
            try:
                # Silence alone is no bound: a header may come byte by byte.
                async with asyncio.timeout(self._patience.answer):
                    with translated(request.url, proxy):
                        return await self._http.request(
                            request.method,
                            request.url,
                            headers=headers,
                            data=request.form,
                            proxy=proxy,
                            allow_redirects=False,
                            auto_decompress=False,
                            read_bufsize=READ_BUFFER,
                            raise_for_status=False,
                            ssl=self._ways.tls(request.url) or True,
                            timeout=timeout,
                        )
            except TimeoutError as exc:
                raise RegistryTimeoutError(
                    f"{request.url.host} did not begin to answer within {self._patience.answer:g} s"
                    ": try again later"
                ) from exc


def retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks to wait; None where it says nothing usable."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), MAX_WAIT)


def _redirected(request: Request, location: str) -> Request:
    origin = request.url.origin()
    target = _target(request.url, location)
    if target is None:
        raise RegistryProtocolError(f"{origin.host} redirects to an address that cannot be used")
    if origin.scheme == "https" and target.scheme != "https":
        raise RegistryProtocolError(
            f"{origin.host} redirects from https to plain http on {target.host}, "
            "which is refused: tell the registry's administrator"
        )
    if request.form is not None:
        raise RegistryProtocolError(
            f"{origin.host} sends us elsewhere with a secret that is for itself, which is refused: "
            "tell the registry's administrator"
        )
    same = target.origin() == origin
    return replace(request, url=target, authorization=request.authorization if same else None)


def _target(base: URL, location: str) -> URL | None:
    """Where a Location header leads, if it may be followed at all."""
    if not location or not location.isascii() or not location.isprintable() or " " in location:
        return None
    try:
        # Signed addresses must arrive as they were written: nothing is quoted again.
        target = base.join(URL(location, encoded=True))
        usable = target.scheme in {"http", "https"} and bool(target.host) and target.port != 0
    except (ValueError, IndexError):  # the latter for `https://[]@`
        return None
    # aiohttp would make an Authorization header of a login in the address.
    return target if usable and target.user is None and target.password is None else None


def _busy(response: aiohttp.ClientResponse, asked: float | None) -> RegistryBusyError:
    host = response.url.host
    later = f"in {asked:.0f} s" if asked else "later"
    if response.status == _TOO_MANY_REQUESTS:
        return RegistryBusyError(
            f"{host} limits how often it may be asked, and the limit is reached: try again "
            f"{later}, or log in if it allows more to users whom it knows"
        )
    if response.status == _BROKEN_INSIDE:
        return RegistryBusyError(
            f"{host} met an error of its own (500): try again {later}; if it stays so, tell the "
            "registry's administrator"
        )
    return RegistryBusyError(f"{host} is overloaded or down ({response.status}): try again {later}")


def _waiting(reason: Exception, seconds: float) -> str:
    """What a pull's user sees meanwhile; the advice after the colon is for its end."""
    return f"waiting {max(1, round(seconds))} s for the registry: {str(reason).partition(':')[0]}"


async def read_piece(
    response: aiohttp.ClientResponse, most: int, pace: Pace, deadline: Deadline
) -> bytes:
    """What has arrived of the body, at least one byte and at most `most`; b"" is the end."""
    async with deadline.bound(f"reading an answer of {response.url.host}"):
        with translated(response.url), pace.waiting():
            piece = await response.content.read(most)
    pace.received(len(piece))
    return piece
