"""Imports: who may, whose they are, and what becomes of a name."""

from dataclasses import replace
from typing import cast

import pytest

from services.gateway.auth.identity import (
    NotAllowedError,
    NotAuthenticatedError,
    Principal,
    Scope,
)
from services.gateway.imports import Import, ImportNotAllowedError, Imports
from services.gateway.pulls import Pulls
from services.gateway.wishes import ImportUnderWayError, NameTakenError, PullTarget, Request
from shared.catalog.records import ImageRecord
from shared.errors import InvalidInputError
from shared.events import (
    ImageChanged,
    ImageConverted,
    ImagePlaced,
    ImageUnchanged,
    ImportedFile,
    PullRequested,
    Readers,
    RefreshRequested,
)
from shared.settings.lifecycle import ImportSettings
from shared.states import State
from tests.support.recipes import small_recipe
from tests.support.transitions import MACHINE, NOW, event_for, taken

TARGET = PullTarget("cluster", "custom", "custom:tool:1")
SCOPES = frozenset({Scope.READ, Scope.PULL})
ADA = Principal("ada", SCOPES, "munge", 1001, frozenset({100, 500}))
FILE = ImportedFile(path="/home/ada/app.tar", uid=1001, gids=(100, 500))
ASK = Request(replace(TARGET, owner=1001), "ada", uid=1001, file=FILE)
WANTED = Import("/home/ada/app.tar")


def imports(*allow: str, public: tuple[str, ...] = ()) -> Imports:
    # What is decided here asks no pulls.
    return Imports(cast("Pulls", None), ImportSettings(allow=allow, allow_public=public))


@pytest.mark.parametrize("allow", ["ada", "1001", "@500", "*", "@root"])
async def test_who_is_named_may_import(allow: str) -> None:
    principal = replace(ADA, gids=ADA.gids | {0}) if allow == "@root" else ADA
    asked = await imports(allow).asked(TARGET, principal, WANTED)
    assert asked.file == FILE.model_copy(update={"gids": tuple(sorted(principal.gids))})
    assert (asked.target.owner, asked.uid) == (1001, 1001)


@pytest.mark.parametrize("allow", ["", "bob", "500", "@1001", "@no-such-group", "@root"])
async def test_who_is_not_named_may_not(allow: str) -> None:
    site = imports(allow) if allow else imports()
    with pytest.raises(ImportNotAllowedError, match=r"imports\.allow of the settings"):
        await site.asked(TARGET, replace(ADA, scopes=SCOPES | {Scope.ADMIN}), WANTED)


async def test_who_has_no_uid_has_no_files() -> None:
    nobody = Principal("anonymous", SCOPES, "nobody")
    with pytest.raises(NotAuthenticatedError, match="who you are"):
        await imports("*").asked(TARGET, nobody, WANTED)
    with pytest.raises(NotAllowedError, match="no files"):
        await imports("*").asked(TARGET, Principal("service:ci", SCOPES, "token"), WANTED)
    reader = replace(ADA, scopes=frozenset({Scope.READ}))
    with pytest.raises(NotAllowedError, match="scope"):
        await imports("*").asked(TARGET, reader, WANTED)


async def test_publishing_is_a_right_of_its_own() -> None:
    public = replace(WANTED, public=True)
    with pytest.raises(ImportNotAllowedError, match=r"imports\.allow_public"):
        await imports("*").asked(TARGET, ADA, public)
    asked = await imports("*", public=("ada",)).asked(TARGET, ADA, public)
    assert (asked.target.owner, asked.uid) == (None, 1001)
    named = replace(public, readers=Readers(uids=(1002,)))
    with pytest.raises(InvalidInputError):
        await imports("*", public=("*",)).asked(TARGET, ADA, named)


async def test_a_digest_is_no_name_to_import_to() -> None:
    pinned = replace(TARGET, reference=f"custom:tool@sha256:{'a' * 64}")
    with pytest.raises(InvalidInputError):
        await imports("*").asked(pinned, ADA, WANTED)


def ready(ask: Request = ASK, identity: str | None = "seen") -> ImageRecord:
    record = taken(MACHINE.request(None, ask, NOW))
    converted = event_for(
        record, ImageConverted, recipe=small_recipe(), authenticated=True, file=identity
    )
    record = taken(MACHINE.converted(record, converted, NOW))
    assert record.recipe is not None
    placed = event_for(
        record,
        ImagePlaced,
        system="cluster",
        image_id=record.recipe.image_id,
        content_digest="c" * 64,
        size=8192,
    )
    return taken(MACHINE.placed(record, placed, NOW))


def test_an_import_is_a_pull_with_a_file_and_stays_private() -> None:
    change = MACHINE.request(None, ASK, NOW)
    assert change is not None
    [event] = change.events
    assert isinstance(event, PullRequested)
    assert (event.file, event.reference) == (FILE, "custom:tool:1")
    record = ready()
    assert (record.state, record.private, record.owner) == (State.READY, True, 1001)
    assert record.current is not None
    assert record.current.file == "seen"
    assert record.file_identity is None


def test_the_same_again_asks_whether_the_file_has_changed() -> None:
    change = MACHINE.request(ready(), ASK, NOW)
    assert change is not None
    [event] = change.events
    assert isinstance(event, RefreshRequested)
    assert (event.file, event.known_file) == (FILE, "seen")
    unchanged = event_for(
        change.record, ImageUnchanged, reference_digest=event.known_digest, authenticated=True
    )
    again = taken(MACHINE.unchanged(change.record, unchanged, NOW))
    assert (again.state, again.private) == (State.READY, True)
    changed = event_for(change.record, ImageChanged, reference_digest=f"sha256:{'9' * 64}")
    pulled = MACHINE.changed(change.record, changed, NOW)
    assert pulled is not None
    [event] = pulled.events
    assert isinstance(event, PullRequested)
    assert event.file == FILE


def test_what_cannot_be_told_apart_is_read_again() -> None:
    change = MACHINE.request(ready(identity=None), ASK, NOW)
    assert change is not None
    assert [type(event) for event in change.events] == [PullRequested]


def test_only_the_same_import_is_joined() -> None:
    under_way = taken(MACHINE.request(None, ASK, NOW))
    assert MACHINE.request(under_way, ASK, NOW) is None
    in_another_group = replace(ASK, file=FILE.model_copy(update={"gids": (7,)}))
    assert MACHINE.request(under_way, in_another_group, NOW) is None
    other = replace(ASK, file=FILE.model_copy(update={"path": "/other"}))
    with pytest.raises(ImportUnderWayError):
        MACHINE.request(under_way, other, NOW)


def test_a_public_name_stays_its_publishers_until_it_is_gone() -> None:
    mine = replace(ASK, target=TARGET)
    theirs = replace(mine, uid=1002, user="bob")
    for record in (taken(MACHINE.request(None, mine, NOW)), ready(mine)):
        with pytest.raises(NameTakenError):
            MACHINE.request(record, theirs, NOW)
    assert MACHINE.request(ready(mine), mine, NOW) is not None
    gone = ready(mine).but(state=State.EXPIRED, current=None, image_id=None)
    assert taken(MACHINE.request(gone, theirs, NOW)).brought_by == 1002
