"""Puts authentication together from the settings: the one place that makes its real parts."""

from dataclasses import dataclass

from services.gateway.auth.authenticator import Authenticator
from services.gateway.auth.authority import Authority
from services.gateway.auth.issue import TokenIssuer
from services.gateway.auth.munge import MungeUsers
from services.gateway.auth.secrets import SiteSecret
from services.gateway.auth.tokens import Tokens
from services.gateway.auth.users import Users
from shared.config import Settings

SECRET_NAME = "gateway.secret"  # noqa: S105 - a file's name


@dataclass(frozen=True, slots=True)
class Authentication:
    """What the gateway needs of it."""

    authenticator: Authenticator
    authority: Authority
    issuer: TokenIssuer
    _munge: MungeUsers
    _users: Users

    def close(self) -> None:
        self._munge.close()
        self._users.close()


def site_secret(settings: Settings) -> SiteSecret:
    """The named file, or one of our own that is made at the first start. Blocks."""
    named = settings.gateway.secret_file
    if named is not None:
        return SiteSecret.load(named)
    return SiteSecret.load_or_make(settings.data_dir / SECRET_NAME)


def authentication(settings: Settings, secret: SiteSecret) -> Authentication:
    gateway = settings.gateway
    users, munge, tokens = Users(), MungeUsers(gateway.munge_socket), Tokens(secret)
    authority = Authority(users, gateway.admins, gateway.anonymous)
    return Authentication(
        Authenticator(authority, munge, tokens),
        authority,
        TokenIssuer(tokens, gateway.token_max_life),
        munge,
        users,
    )
