"""Tickets: how a worker gets a user's registry password, which never travels in an event.

A ticket is 256 random bits in the event; the record of the pull, or of the login that is tried,
has its digest beside the sealed password. It is good once, and only while that attempt waits: the
write that redeems it also says that a worker has begun, and each new attempt gets a new ticket.
Who is late, or second, is told so and leaves the attempt alone; the lease decides about it.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Final

from services.gateway.auth.identity import Login
from services.gateway.sealing import Sealer
from shared.api import TicketRequest
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord, LoginRecord
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.logging import get_logger
from shared.models import utcnow
from shared.states import State

log = get_logger(__name__)

_BYTES: Final = 32


class TicketRefusedError(DrayError):
    """A ticket that is spent, over, or was never issued."""

    code = "ticket_refused"
    status = 410


def new_ticket() -> tuple[str, str]:
    """A ticket, and what its record keeps of it."""
    ticket = secrets.token_urlsafe(_BYTES)
    return ticket, _digest(ticket)


def issued(record: ImageRecord) -> tuple[ImageRecord, str | None]:
    """The record as it is asked about next, and the ticket for it, where there is a password."""
    if record.login is None or record.state is State.TRANSFER:
        return record, None
    ticket, digest = new_ticket()
    return record.but(ticket=digest), ticket


def redeemed(
    record: ImageRecord | None, ticket: str, now: datetime, lease: float
) -> Change[ImageRecord] | None:
    """A worker takes the password: its attempt has begun. None: the ticket is no good."""
    if record is None or record.login is None or not record.state.in_flight:
        return None
    if not _fits(ticket, record.ticket):
        return None
    due = now + timedelta(seconds=lease)
    return Change(record.but(ticket=None, begun=True, due_at=due))


def taken(record: LoginRecord | None, ticket: str, now: datetime) -> Change[LoginRecord] | None:
    """The same for a login that is tried."""
    if record is None or not record.sealed or record.expires_at <= now:
        return None
    return Change(record.but(ticket=None)) if _fits(ticket, record.ticket) else None


class Tickets:
    """Gives passwords for tickets. Two gateways that are asked at once give one answer."""

    def __init__(self, catalog: Catalog, sealer: Sealer, *, lease: float, timeout: float) -> None:
        self._catalog = catalog
        self._sealer = sealer
        self._lease = lease
        self._timeout = timeout

    async def redeem(self, wanted: TicketRequest) -> Login:
        sealed = await (self._of_pull(wanted) if wanted.kind == "pull" else self._of_login(wanted))
        if sealed is None:
            log.warning("ticket_refused", kind=wanted.kind, key=wanted.key)
            raise TicketRefusedError(
                "this ticket was used before, or its attempt is over: the gateway will ask again"
            )
        return self._sealer.open(*sealed)

    async def _of_pull(self, wanted: TicketRequest) -> tuple[str, str] | None:
        sealed: str | None = None

        def step(found: ImageRecord | None) -> Change[ImageRecord] | None:
            nonlocal sealed
            change = redeemed(found, wanted.ticket, utcnow(), self._lease)
            sealed = change.record.login if change is not None else None
            return change

        await self._catalog.images.change(wanted.key, step, self._deadline())
        return None if sealed is None else (sealed, wanted.key)

    async def _of_login(self, wanted: TicketRequest) -> tuple[str, str] | None:
        record: LoginRecord | None = None

        def step(found: LoginRecord | None) -> Change[LoginRecord] | None:
            nonlocal record
            change = taken(found, wanted.ticket, utcnow())
            record = change.record if change is not None else None
            return change

        await self._catalog.logins.change(wanted.key, step, self._deadline())
        return None if record is None else (record.sealed, record.key)

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout)


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def _fits(ticket: str, digest: str | None) -> bool:
    return digest is not None and hmac.compare_digest(_digest(ticket), digest)
