"""Users' logins to registries: tried at the registry at once, kept sealed until they expire.

A login that is being tried is a record under a key of its own, so that one that turns out wrong
takes nothing away. The answer may arrive at another gateway: whoever waits looks at that record.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from services.gateway.auth.identity import Login, NotAuthenticatedError, Principal
from services.gateway.auth.locations import DEFAULT_LOCATION, location
from services.gateway.metrics import LOGINS
from services.gateway.sealing import Sealer
from services.gateway.tickets import new_ticket
from shared.api import LoginRequest
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import Failure, LoginRecord, login_key
from shared.deadline import Deadline
from shared.errors import (
    ConflictError,
    DeadlineExceededError,
    DrayError,
    InvalidInputError,
    NotFoundError,
)
from shared.events import LoginChecked, LoginRequested, new_id
from shared.logging import get_logger
from shared.models import utcnow
from shared.reference import DEFAULT_REGISTRY, parse_reference

log = get_logger(__name__)

ANSWER_SECONDS: Final = 20.0
MOST_LOGINS: Final = 64
"""Of one user."""
_CHECK_KEPT: Final = timedelta(minutes=5)
_LOOK_AGAIN: Final = 0.25
_BATCH: Final = 200


class LoginRefusedError(DrayError):
    """The registry does not take these credentials."""

    code = "login_refused"
    status = 401


class LoginUncheckedError(DrayError):
    """The registry could not be asked, or did not say yes or no."""

    code = "login_unchecked"
    status = 502
    retryable = True


class TooManyLoginsKeptError(ConflictError):
    """One user is logged in to more registries than anybody needs."""

    code = "too_many_logins"
    retryable = False


class Logins:
    """Logins of all users, over one catalog."""

    def __init__(self, catalog: Catalog, sealer: Sealer, *, days: int, timeout: float) -> None:
        self._catalog = catalog
        self._sealer = sealer
        self._kept = timedelta(days=days)
        self._timeout = timeout

    async def log_in(self, principal: Principal, wanted: LoginRequest) -> LoginRecord:
        """Have a converter try them; kept only if the registry takes them."""
        uid = uid_of(principal)
        registry = registry_named(wanted.registry)
        if len(await self.of(principal)) >= MOST_LOGINS:
            raise TooManyLoginsKeptError(
                f"you are logged in to {MOST_LOGINS} registries already: log out of some of them"
            )
        check_id = new_id()
        key = check_key(check_id)
        ticket, digest = new_ticket()
        login = Login(wanted.username, wanted.password.get_secret_value())
        expires = utcnow() + _CHECK_KEPT
        record = LoginRecord(
            key=key,
            uid=uid,
            registry=registry,
            username=wanted.username,
            sealed=self._sealer.seal(login, key),
            ticket=digest,
            expires_at=expires,
            due_at=expires,
        )
        event = LoginRequested(
            correlation_id=check_id, login_id=check_id, registry=registry, ticket=ticket
        )
        step = Change(record, (event,))
        await self._catalog.logins.change(key, lambda _: step, self._deadline())
        return await self._answered(key, registry, Deadline.after(ANSWER_SECONDS))

    async def of(self, principal: Principal) -> list[LoginRecord]:
        """The registries that a user is logged in to."""
        uid, now = uid_of(principal), utcnow()
        found = await self._catalog.logins.find({"uid": str(uid)}, limit=_BATCH)
        return [
            each
            for each in found
            if each.key == login_key(uid, each.registry) and each.expires_at > now
        ]

    async def log_out(self, principal: Principal, registry: str) -> None:
        named = registry_named(registry)
        key = login_key(uid_of(principal), named)
        while (record := await self._catalog.logins.get(key)) is not None:
            if await self._catalog.logins.remove(key, record.version):
                return
        raise NotFoundError(f"you are not logged in to {named}")

    async def login_for(self, principal: Principal, registry: str) -> Login | None:
        """What this user has for a registry: with the request itself, else kept."""
        brought = _brought(principal.logins, registry)
        if brought is not None or principal.uid is None:
            return brought
        key = login_key(principal.uid, registry)
        record = await self._catalog.logins.get(key)
        if record is None or record.expires_at <= utcnow():
            return None
        return self._sealer.open(record.sealed, key)

    def seal(self, login: Login, key: str) -> str:
        """As a record of this key may hold it."""
        return self._sealer.seal(login, key)

    async def on_checked(self, event: LoginChecked) -> None:
        """What the registry said; a login that it takes is kept from now on."""
        key = check_key(event.login_id)
        tried = await self._catalog.logins.get(key)
        if tried is None:
            return
        now = utcnow()
        if event.code is None and tried.sealed:
            await self._keep(tried, now)
        failure = None if event.code is None else Failure(code=event.code, message=event.message)

        def step(found: LoginRecord | None) -> Change[LoginRecord] | None:
            if found is None or found.checked_at is not None:
                return None
            # Nobody needs the password in this record any more.
            return Change(found.but(sealed="", ticket=None, checked_at=now, failure=failure))

        await self._catalog.logins.change(key, step, self._deadline())
        LOGINS.labels("accepted" if event.code is None else "refused").inc()
        log.info("login_checked", uid=tried.uid, registry=tried.registry, code=event.code)

    async def forget_expired(self) -> None:
        while await self._catalog.logins.forget(utcnow(), _BATCH) == _BATCH:
            continue

    async def _keep(self, tried: LoginRecord, now: datetime) -> None:
        key = login_key(tried.uid, tried.registry)
        sealed = self._sealer.seal(self._sealer.open(tried.sealed, tried.key), key)
        expires = now + self._kept

        def step(found: LoginRecord | None) -> Change[LoginRecord]:
            return Change(
                LoginRecord(
                    key=key,
                    version=found.version if found else 0,
                    uid=tried.uid,
                    registry=tried.registry,
                    username=tried.username,
                    sealed=sealed,
                    checked_at=now,
                    expires_at=expires,
                    due_at=expires,
                )
            )

        await self._catalog.logins.change(key, step, self._deadline())

    async def _answered(self, key: str, registry: str, deadline: Deadline) -> LoginRecord:
        while True:
            record = await self._catalog.logins.get(key)
            if record is None:
                raise LoginUncheckedError(f"the login to {registry} was not tried: log in again")
            if record.checked_at is not None:
                break
            if deadline.expired:
                raise DeadlineExceededError(
                    f"{registry} has not been asked within {ANSWER_SECONDS:g} s: log in again; if "
                    "it stays so, ask the operator whether converters are running"
                )
            await asyncio.sleep(min(_LOOK_AGAIN, deadline.remaining()))
        failure = record.failure
        if failure is None:
            kept = await self._catalog.logins.get(login_key(record.uid, registry))
            return record if kept is None else kept
        kind = LoginRefusedError if failure.code == LoginRefusedError.code else LoginUncheckedError
        raise kind(failure.message)

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout)


def uid_of(principal: Principal) -> int:
    if principal.uid is None:
        raise NotAuthenticatedError(
            "only users have logins: use the gateway's socket on its own machine, MUNGE, or a "
            "token of yours (dray token)"
        )
    return principal.uid


def check_key(login_id: str) -> str:
    return f"check/{login_id}"


def registry_named(text: str | None) -> str:
    """A registry as a user wrote it, in the form that references have."""
    if text is None or location(text) in {"", DEFAULT_REGISTRY}:
        return DEFAULT_REGISTRY
    # What a reference cannot name is no registry; one word would be a name in Docker Hub.
    registry = parse_reference(f"{location(text)}/any/image").registry
    if registry == DEFAULT_REGISTRY:
        raise InvalidInputError(
            "write the registry as references do: a host with a dot, or host:port; without one, "
            "Docker Hub is meant"
        )
    return registry


def _brought(logins: Mapping[str, Login], registry: str) -> Login | None:
    """What Shifter's login calls the default is Docker Hub's, and is shown to nobody else."""
    found = logins.get(registry)
    if found is None and registry == DEFAULT_REGISTRY:
        return logins.get(DEFAULT_LOCATION)
    return found
