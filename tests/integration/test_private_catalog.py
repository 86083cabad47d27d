"""Tickets, logins and readers over both catalogs, where two gateways act at once."""

import asyncio
from functools import partial

import pytest

from services.gateway.adoption import Adoption
from services.gateway.auth.identity import Login, NotAuthenticatedError, Principal, Scope
from services.gateway.auth.secrets import SiteSecret
from services.gateway.expiring import dismissed
from services.gateway.logins import (
    LoginRefusedError,
    Logins,
    LoginUncheckedError,
    check_key,
)
from services.gateway.readers import ReadersBook
from services.gateway.sealing import Sealer
from services.gateway.tickets import TicketRefusedError, Tickets
from services.gateway.transitions import PullTarget, Request
from shared.api import LoginRequest, TicketRequest
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord, LoginRecord, image_key
from shared.errors import InvalidInputError, NotFoundError
from shared.events import (
    ImageConverted,
    LoginChecked,
    LoginRequested,
    PullRequested,
    Readers,
    ReadersChanged,
)
from shared.models import utcnow
from shared.states import State
from tests.support.catalogs import later, put, soon
from tests.support.conditions import eventually
from tests.support.recipes import small_recipe
from tests.support.transitions import MACHINE, NOW, TARGET, event_for, placed, taken

SEALER = Sealer(SiteSecret((b"k" * 32,)))
ADA = Principal("ada", frozenset({Scope.READ, Scope.PULL}), "munge", 1000, frozenset({1000}))
BEN = Principal("ben", ADA.scopes, "munge", 1001, frozenset({1001}))
PUBLIC = Principal("anonymous", ADA.scopes, "nobody")
LOGIN = Login("ada", "pa:ss\"w'ord")
REGISTRY = "registry.example.org"


def logins_of(catalog: Catalog) -> Logins:
    """A gateway's."""
    return Logins(catalog, SEALER, days=1, timeout=5.0)


def wanted(password: str = LOGIN.password, registry: str = REGISTRY) -> LoginRequest:
    return LoginRequest.model_validate(
        {"registry": registry, "username": LOGIN.username, "password": password}
    )


async def requested(catalog: Catalog) -> LoginRequested:
    """The event that a converter would get."""

    async def posted() -> LoginRequested | None:
        for pending in await catalog.pending(later(), 100):
            if isinstance(pending.event, LoginRequested):
                await catalog.settle(pending)
                return pending.event
        return None

    event = await eventually(posted, within=5)
    assert event is not None
    return event


def checked(event: LoginRequested, code: str | None = None) -> LoginChecked:
    message = "" if code is None else "the registry says no"
    return LoginChecked(correlation_id="c", login_id=event.login_id, code=code, message=message)


async def private_pull(catalog: Catalog) -> tuple[ImageRecord, str]:
    """An owner's pull in the catalog, and its ticket."""
    target = PullTarget(TARGET.system, TARGET.itype, TARGET.reference, owner=1000)
    ask = Request(target, "ada", uid=1000, login=SEALER.seal(LOGIN, target.key))
    record = await catalog.images.change(
        target.key, lambda found: MACHINE.request(found, ask, utcnow()), soon()
    )
    assert record is not None
    [pending] = await catalog.pending(later(), 10)
    assert isinstance(pending.event, PullRequested)
    assert pending.event.ticket is not None
    return record, pending.event.ticket


async def test_of_many_who_redeem_a_ticket_at_once_one_gets_the_password(
    catalog: Catalog,
) -> None:
    record, ticket = await private_pull(catalog)
    gateways = [Tickets(catalog, SEALER, lease=60, timeout=5) for _ in range(2)]
    request = TicketRequest(kind="pull", key=record.key, ticket=ticket)
    answers = await asyncio.gather(
        *(gateways[n % 2].redeem(request) for n in range(8)), return_exceptions=True
    )
    assert [each for each in answers if isinstance(each, Login)] == [LOGIN]
    assert all(isinstance(each, Login | TicketRefusedError) for each in answers)
    begun = await catalog.images.get(record.key)
    assert begun is not None
    assert begun.begun


async def test_tickets_are_for_their_own_record_and_kind(catalog: Catalog) -> None:
    record, ticket = await private_pull(catalog)
    tickets = Tickets(catalog, SEALER, lease=60, timeout=5)
    for request in (
        TicketRequest(kind="login", key=record.key, ticket=ticket),
        TicketRequest(kind="pull", key=TARGET.key, ticket=ticket),
        TicketRequest(kind="pull", key=record.key, ticket="x" * 43),
    ):
        with pytest.raises(TicketRefusedError):
            await tickets.redeem(request)
    over = record.but(attempt=2)
    await catalog.images.change(record.key, lambda _: MACHINE.interrupted(over, utcnow()), soon())
    with pytest.raises(TicketRefusedError):
        await tickets.redeem(TicketRequest(kind="pull", key=record.key, ticket=ticket))


async def test_a_login_is_tried_and_kept_though_another_gateway_hears_of_it(
    catalog: Catalog,
) -> None:
    one, other = logins_of(catalog), logins_of(catalog)
    tickets = Tickets(catalog, SEALER, lease=60, timeout=5)
    logging_in = asyncio.create_task(one.log_in(ADA, wanted()))
    event = await requested(catalog)
    key = check_key(event.login_id)
    request = TicketRequest(kind="login", key=key, ticket=event.ticket)
    assert await tickets.redeem(request) == LOGIN
    with pytest.raises(TicketRefusedError):
        await tickets.redeem(request)
    await other.on_checked(checked(event))
    await other.on_checked(checked(event))  # at least once
    view = await logging_in
    assert (view.registry, view.username) == (REGISTRY, "ada")
    assert await other.login_for(ADA, REGISTRY) == LOGIN
    assert await other.login_for(BEN, REGISTRY) is None
    assert await other.login_for(ADA, "another.example.org") is None
    assert [each.registry for each in await other.of(ADA)] == [REGISTRY]
    tried = await catalog.logins.get(key)
    assert tried is not None
    assert (tried.sealed, tried.ticket) == ("", None)
    for text in (view.model_dump_json(), tried.model_dump_json()):
        assert "pa:ss" not in text
    await one.log_out(ADA, REGISTRY)
    assert await other.login_for(ADA, REGISTRY) is None
    with pytest.raises(NotFoundError):
        await one.log_out(ADA, REGISTRY)


@pytest.mark.parametrize(
    ("code", "error"),
    [("login_refused", LoginRefusedError), ("registry_unreachable", LoginUncheckedError)],
)
async def test_a_login_that_fails_takes_none_away(
    catalog: Catalog, code: str, error: type[Exception]
) -> None:
    logins = logins_of(catalog)
    first = asyncio.create_task(logins.log_in(ADA, wanted()))
    await logins.on_checked(checked(await requested(catalog)))
    await first
    second = asyncio.create_task(logins.log_in(ADA, wanted("wrong")))
    await logins.on_checked(checked(await requested(catalog), code))
    with pytest.raises(error, match="the registry says no"):
        await second
    assert await logins.login_for(ADA, REGISTRY) == LOGIN


async def test_only_users_log_in_and_only_to_registries(catalog: Catalog) -> None:
    logins = logins_of(catalog)
    with pytest.raises(NotAuthenticatedError):
        await logins.log_in(PUBLIC, wanted())
    # One word would be a name in Docker Hub, which must not hear of the password.
    for registry in ("harbor", "a b", "user@x.example.org"):
        with pytest.raises(InvalidInputError):
            await logins.log_in(ADA, wanted(registry=registry))


async def test_a_login_ends(catalog: Catalog) -> None:
    logins = logins_of(catalog)
    key = "1000/registry.example.org"
    record = LoginRecord(
        key=key,
        uid=1000,
        registry=REGISTRY,
        username="ada",
        sealed=SEALER.seal(LOGIN, key),
        expires_at=NOW,
        due_at=NOW,
    )
    await catalog.logins.change(key, put(record), soon())
    assert await logins.login_for(ADA, REGISTRY) is None
    assert await logins.of(ADA) == []
    await logins.forget_expired()
    assert await catalog.logins.get(key) is None


async def test_credentials_that_come_along_go_to_their_registry_only(catalog: Catalog) -> None:
    logins = logins_of(catalog)
    brought = {"default": Login("hub", "h"), REGISTRY: Login("own", "o")}
    who = Principal("ada", ADA.scopes, "munge", 1000, frozenset(), brought)
    assert await logins.login_for(who, "docker.io") == Login("hub", "h")
    assert await logins.login_for(who, REGISTRY) == Login("own", "o")
    assert await logins.login_for(who, "evil.example.org") is None


async def owned(
    catalog: Catalog, owner: int, *, private: bool = True, readers: Readers | None = None
) -> ImageRecord:
    """A READY record of an owner; all of them have the same image."""
    target = PullTarget(TARGET.system, TARGET.itype, TARGET.reference, owner=owner)
    record = taken(MACHINE.request(None, Request(target, "x", readers=readers), NOW))
    event = event_for(record, ImageConverted, recipe=small_recipe(), authenticated=private)
    record = taken(MACHINE.converted(record, event, NOW))
    record = taken(MACHINE.placed(record, placed(record), NOW))
    stored = await catalog.images.change(record.key, put(record), soon())
    assert stored is not None
    return stored


async def words(catalog: Catalog) -> list[ReadersChanged]:
    events = [each.event for each in await catalog.pending(later(), 1000)]
    return [each for each in events if isinstance(each, ReadersChanged)]


async def told(catalog: Catalog) -> list[Readers | None]:
    """In the order in which distributors take it."""
    found = await words(catalog)
    assert len({each.revision for each in found}) == len(found)
    return [each.readers for each in sorted(found, key=lambda each: each.revision)]


async def test_an_images_readers_are_those_of_all_its_records(catalog: Catalog) -> None:
    book = ReadersBook(catalog, 5.0)
    first = await owned(catalog, 1000, readers=Readers(uids=(7,)))
    assert first.image_id is not None
    tell = partial(book.tell, first.system, first.image_id)
    await tell()
    await tell()
    assert await told(catalog) == [Readers(uids=(7, 1000))]
    await owned(catalog, 1001, readers=Readers(gids=(50,)))
    await tell()
    await tell(anew=True)
    both = Readers(uids=(7, 1000, 1001), gids=(50,))
    assert (await told(catalog))[1:] == [both, both]


async def test_a_catalog_that_was_restored_is_heard_at_once(catalog: Catalog) -> None:
    """Distributors keep to the latest word, and the backup knows of fewer."""
    book = ReadersBook(catalog, 5.0)
    first = await owned(catalog, 1000, readers=Readers(uids=(7,)))
    assert first.image_id is not None
    key = f"{first.system}/{first.image_id}"
    await book.tell(first.system, first.image_id)
    backup = await catalog.readers.get(key)
    assert backup is not None
    for _ in range(3):
        await book.tell(first.system, first.image_id, anew=True)
    heard = await words(catalog)
    await catalog.settle(*await catalog.pending(later(), 100))
    assert await catalog.readers.remove(key, backup.version + 3)
    await catalog.readers.change(key, put(backup.but(version=0)), soon())
    await catalog.images.change(first.key, put(first.but(allowed_uids=())), soon())
    await book.tell(first.system, first.image_id)
    [word] = await words(catalog)
    assert word.readers == Readers(uids=(1000,))
    assert word.revision > max(each.revision for each in heard)


async def test_one_public_record_opens_the_image_to_everybody(catalog: Catalog) -> None:
    book = ReadersBook(catalog, 5.0)
    adoption = Adoption(catalog, book, 5.0)
    mine = await owned(catalog, 1000)
    assert mine.image_id is not None
    await book.tell(mine.system, mine.image_id)
    theirs = await owned(catalog, 1001, private=False)
    await adoption.ended(None, theirs)
    public = await catalog.images.get(image_key(mine.system, mine.itype, mine.reference))
    assert public is not None
    assert (public.owner, public.current) == (None, theirs.current)
    known = await catalog.readers.get(f"{mine.system}/{mine.image_id}")
    assert known is not None
    assert (known.version, known.readers) == (2, None)


async def test_of_gateways_that_change_readers_at_once_the_last_word_is_true(
    catalog: Catalog,
) -> None:
    books = [ReadersBook(catalog, 10.0) for _ in range(3)]
    records = [await owned(catalog, 1000 + number) for number in range(6)]
    image = records[0].image_id
    assert image is not None

    async def name(number: int) -> None:
        record = records[number]
        named = record.but(allowed_uids=(number,))
        await catalog.images.change(record.key, put(named), soon())
        await books[number % 3].tell(record.system, image)

    await asyncio.gather(*(name(number) for number in range(6)))
    known = await catalog.readers.get(f"{records[0].system}/{image}")
    assert known is not None
    assert known.readers == Readers(uids=(*range(6), *range(1000, 1006)))
    events = await told(catalog)
    assert len(events) == known.version
    assert events[-1] == known.readers


async def test_what_expired_while_it_became_everybodys_is_not_kept(catalog: Catalog) -> None:
    """Whoever removes the image looked for records before the public one stood for it."""
    mine = await owned(catalog, 1000, private=False)
    await catalog.images.change(mine.key, lambda found: dismissed(found, utcnow()), soon())
    await Adoption(catalog, ReadersBook(catalog, 5.0), 5.0).ended(None, mine)
    public = await catalog.images.get(image_key(mine.system, mine.itype, mine.reference))
    assert public is not None
    assert (public.state, public.current, public.leaving) == (State.EXPIRING, None, mine.image_id)
