"""Who may do what, by the settings; and who gets which token."""

import os
from typing import Literal

import pytest

from services.gateway.auth.authority import Authority
from services.gateway.auth.identity import (
    NotAllowedError,
    NotAuthenticatedError,
    Principal,
    Scope,
)
from services.gateway.auth.issue import TokenIssuer
from services.gateway.auth.secrets import SiteSecret
from services.gateway.auth.tokens import TokenInvalidError, Tokens
from services.gateway.auth.users import User, Users
from shared.api.account import ScopeName, TokenRequest
from shared.errors import InvalidInputError

READ, PULL, ADMIN = Scope.READ, Scope.PULL, Scope.ADMIN
NAMES = {1000: "alice", 1001: "slurm", 1002: "bob"}
TOKENS = Tokens(SiteSecret((b"k" * 32,)))


def look_up(uid: int) -> User:
    name = NAMES.get(uid)
    return User(uid, name or str(uid), frozenset({uid}), known=name is not None)


def authority(*admins: str, anonymous: Literal["none", "read", "pull"] = "pull") -> Authority:
    return Authority(Users(look_up), admins, anonymous)


async def user(of: Authority, uid: int) -> Principal:
    return await of.user(uid, 50, "munge", {})


async def test_admins_are_root_the_gateway_s_user_and_those_named() -> None:
    site = authority("slurm", "1002", "1003")
    for uid in (0, os.geteuid(), 1001, 1002, 1003):
        assert (await user(site, uid)).scopes == {READ, PULL, ADMIN}, uid
    alice = await user(site, 1000)
    assert alice.scopes == {READ, PULL}
    assert (alice.name, alice.uid) == ("alice", 1000)
    assert alice.gids == {1000, 50}


async def test_who_has_no_name_is_never_an_admin_by_name() -> None:
    """Its name is a number then, and a number in the settings is a uid."""
    assert not (await user(authority("slurm"), 4000)).admin
    assert not (await user(authority("40"), 4000)).admin


@pytest.mark.parametrize(
    ("anonymous", "scopes"), [("none", set()), ("read", {READ}), ("pull", {READ, PULL})]
)
async def test_the_public_may_what_the_settings_say(
    anonymous: Literal["none", "read", "pull"], scopes: set[Scope]
) -> None:
    public = authority(anonymous=anonymous).public
    assert public.scopes == scopes
    assert public.uid is None
    with pytest.raises(NotAuthenticatedError, match="dray token"):
        public.require(ADMIN)


def issued(
    maker: Principal, *scopes: ScopeName, service: str | None = None, seconds: float = 60
) -> str:
    wanted = TokenRequest(scopes=scopes or ("read",), service=service, seconds=seconds)
    return TokenIssuer(TOKENS, max_life=3600).issue(maker, wanted).token


async def bearer(site: Authority, token: str) -> Principal:
    return await site.bearer(TOKENS.read(token))


async def test_a_token_is_its_maker_with_no_more_than_was_asked_for() -> None:
    site = authority()
    alice = await user(site, 1000)
    reader = await bearer(site, issued(alice))
    assert (reader.name, reader.uid, reader.via) == ("alice", 1000, "token")
    assert reader.gids == {1000}  # as the directory says, whichever group it was made with
    assert reader.scopes == {READ}
    assert (await bearer(site, issued(alice, "pull"))).scopes == {READ, PULL}


async def test_nobody_gets_more_than_they_may() -> None:
    site = authority("slurm", anonymous="pull")
    alice, slurm = await user(site, 1000), await user(site, 1001)
    with pytest.raises(NotAllowedError):
        issued(alice, "admin")
    with pytest.raises(NotAllowedError):
        issued(alice, "read", service="grafana")
    with pytest.raises(NotAuthenticatedError):
        issued(site.public, "read")
    with pytest.raises(InvalidInputError, match="token_max_life"):
        issued(alice, seconds=3601)
    with pytest.raises(InvalidInputError, match=r"3600 s \(1 h\) here at most"):
        issued(alice, seconds=30 * 86400)
    by_token = await bearer(site, issued(slurm, "admin"))
    assert by_token.admin
    with pytest.raises(NotAllowedError, match="a token makes no tokens"):
        issued(by_token, "read")


async def test_a_service_account_is_no_user_of_that_name() -> None:
    site = authority("slurm")
    account = await bearer(site, issued(await user(site, 1001), "pull", service="alice"))
    assert (account.name, account.uid, account.gids) == ("service:alice", None, frozenset())
    assert account.scopes == {READ, PULL}


async def test_a_token_is_no_better_than_its_user_has_become() -> None:
    before = authority("slurm")
    token = issued(await user(before, 1001), "admin")
    assert (await bearer(before, token)).admin
    assert (await bearer(authority(), token)).scopes == {READ, PULL}


async def test_a_token_does_not_pass_on_to_whom_its_user_id_is_given() -> None:
    token = issued(await user(authority(), 1000))
    names = {1000: "newcomer"}
    later = Authority(Users(lambda uid: User(uid, names[uid], frozenset(), known=True)), (), "pull")
    with pytest.raises(TokenInvalidError, match="alice's"):
        await bearer(later, token)
    # A directory that is away, or was when the token was made, is no reason to refuse.
    away = Authority(Users(lambda uid: User(uid, str(uid), frozenset(), known=False)), (), "pull")
    assert (await bearer(away, token)).uid == 1000
    nameless = issued(await user(away, 1000))
    assert (await bearer(authority(), nameless)).name == "alice"


async def test_who_is_in_memory_is_known_at_once_and_is_the_same() -> None:
    """Somebody whom the machine must be asked about is nobody until then, and no service."""
    site = authority("slurm")
    token = issued(await user(authority(), 1000), "pull")
    assert site.bearer_at_hand(TOKENS.read(token)) is None
    assert site.peer_at_hand(1000, 50) is None
    by_token, by_socket = await bearer(site, token), await site.user(1000, 50, "socket", {})
    assert site.bearer_at_hand(TOKENS.read(token)) == by_token
    assert site.peer_at_hand(1000, 50) == by_socket
    account = issued(await user(site, 1001), "read", service="grafana")
    assert site.bearer_at_hand(TOKENS.read(account)) == await bearer(site, account)
