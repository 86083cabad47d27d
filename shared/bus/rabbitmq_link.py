"""One connection to RabbitMQ that is made again whenever it breaks.

The client library's own robust connection restores channels behind one's back and tells nobody
what was lost on the way. Here a session is one connection's life: whoever uses it is told when it
ends, and sets up what it needs on the next one.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import DeliveryError
from yarl import URL

from shared.bus.delivery import backoff, spread_over
from shared.deadline import Deadline
from shared.errors import BusUnavailableError, ConfigError, DeadlineExceededError
from shared.logging import get_logger
from shared.metrics import BUS_CONNECTED
from shared.tasks import cancel_all

log = get_logger(__name__)

T = TypeVar("T")

CONNECT_SECONDS = 10.0
CALL_SECONDS = 10.0
CLOSE_SECONDS = 5.0
HEARTBEAT_SECONDS = 10
"""A silent peer is given up after three of these; the library's default takes three minutes."""
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


class LinkLostError(BusUnavailableError):
    """The broker, the connection or the channel went away during an operation."""


async def guarded(work: Awaitable[T], seconds: float, *ends: "asyncio.Future[Any]") -> T:
    """Await one operation of the client library; LinkLostError if it fails, hangs or `ends`.

    When a channel or connection goes, the library may raise from several families, cancel what
    waits, or let it wait for ever. In a task of its own none of that can be taken for a
    cancellation of the caller. What the broker says about a publish is passed on as it is.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, *ends}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_ignore_outcome)
    if not task.done():
        gone = any(end.done() for end in ends)
        raise LinkLostError("the connection was lost" if gone else f"no answer in {seconds:.3g} s")
    if task.cancelled():
        raise LinkLostError("the channel was closed")
    try:
        return task.result()
    except DeliveryError:
        raise
    except Exception as exc:
        raise LinkLostError(str(exc) or type(exc).__name__) from exc


def _ignore_outcome(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


@dataclass(frozen=True, slots=True)
class Session:
    """One connection, until it is lost."""

    connection: AbstractConnection
    lost: "asyncio.Future[Any]"

    async def call(self, work: Awaitable[T], seconds: float = CALL_SECONDS) -> T:
        return await guarded(work, seconds, self.lost)

    async def channel(self) -> AbstractChannel:
        """A channel on which an unroutable publish raises."""
        return await self.call(self._channel())

    async def _channel(self) -> AbstractChannel:
        channel = self.connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        return channel

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Unacknowledged deliveries go back to their queue, also if nobody answers."""
        with contextlib.suppress(LinkLostError):
            await guarded(_close(channel), CLOSE_SECONDS, self.lost)

    async def close(self) -> None:
        with contextlib.suppress(LinkLostError):
            await guarded(_close(self.connection), CLOSE_SECONDS)


async def _close(closable: AbstractChannel | AbstractConnection) -> None:
    await closable.close()


class Link:
    """Keeps a session alive from `start` to `close`."""

    def __init__(self, url: str, client_name: str, spread: float | None = None) -> None:
        """With `spread` it waits a random part of these seconds before it connects again."""
        self._url, self.address = _parse(url)
        self._client_name = client_name
        self._spread = spread
        self._session: Session | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None
        self._trouble = "no answer yet"

    @property
    def connected(self) -> bool:
        return self._session is not None and not self._session.lost.done()

    def start(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="rabbitmq-link")

    async def close(self) -> None:
        self._closed = True
        self._changed.set()
        if self._keeper is not None:
            await cancel_all(self._keeper)

    async def session(self) -> Session:
        """The present session, or the next one."""
        while not self._closed:
            if self._session is not None and self.connected:
                return self._session
            self._changed.clear()
            await self._changed.wait()
        raise BusUnavailableError("the event bus was closed")

    async def session_within(self, deadline: Deadline) -> Session:
        if self._keeper is None:
            raise BusUnavailableError("the event bus is not open")
        try:
            async with deadline.bound("waiting for RabbitMQ"):
                return await self.session()
        except DeadlineExceededError as exc:
            raise self.unavailable() from exc

    def unavailable(self, trouble: str | None = None) -> BusUnavailableError:
        return BusUnavailableError(
            f"RabbitMQ at {self.address} cannot be used: {trouble or self._trouble}. Check that "
            "the broker runs and has memory and disk left, that bus.url names its host, port and "
            "virtual host, and that its user may connect and declare queues there"
        )

    async def connect(self) -> Session:
        """A connection of one's own; the caller closes it."""
        try:
            connection = await guarded(
                aio_pika.connect(
                    self._url,
                    timeout=CONNECT_SECONDS,
                    client_properties={"connection_name": self._client_name},
                ),
                CONNECT_SECONDS,
            )
        except LinkLostError as exc:
            # The cause ends here: its frames hold the URL, and a log may show their variables.
            raise LinkLostError(self._redacted(exc.message)) from None
        assert connection.transport is not None
        return Session(connection, connection.transport.connection.closing)

    async def _keep(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                session = await self.connect()
            except LinkLostError as exc:
                if exc.message != self._trouble:
                    log.warning("bus_unreachable", broker=self.address, error=exc.message)
                self._trouble = exc.message
            else:
                await self._live(session)
                if time.monotonic() - began > LAST_RETRY_SECONDS:
                    failures = 0
            await asyncio.sleep(self._delay(failures))
            failures += 1

    def _delay(self, failures: int) -> float:
        if self._spread is not None:
            return spread_over(self._spread)
        return backoff(failures, first=FIRST_RETRY_SECONDS, ceiling=LAST_RETRY_SECONDS)

    async def _live(self, session: Session) -> None:
        self._session = session
        self._changed.set()
        BUS_CONNECTED.set(1)
        log.info("bus_connected", broker=self.address)
        try:
            await asyncio.wait({session.lost})
            self._trouble = self._redacted(_reason(session.lost))
            log.warning("bus_connection_lost", broker=self.address, error=self._trouble)
        finally:
            self._session = None
            BUS_CONNECTED.set(0)
            await session.close()

    def _redacted(self, text: str) -> str:
        for secret in (self._url.password, self._url.raw_password):
            if secret:
                text = text.replace(secret, "***")
        return text


def _reason(lost: "asyncio.Future[Any]") -> str:
    exc = None if lost.cancelled() else lost.exception()
    if exc is None or isinstance(exc, asyncio.CancelledError):
        return "the broker fell silent"
    return str(exc) or type(exc).__name__


def _parse(url: str) -> tuple[URL, str]:
    usage = "bus.url: write amqp://user:password@host:port/virtual-host"
    try:
        parsed = URL(url)
        default_port = DEFAULT_PORTS[parsed.scheme]
        host, port = parsed.host, parsed.port or default_port
    except (ValueError, KeyError):
        raise ConfigError(usage) from None
    if not host:
        raise ConfigError(usage)
    if "heartbeat" not in parsed.query:
        parsed = parsed.update_query(heartbeat=HEARTBEAT_SECONDS)
    return parsed, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
