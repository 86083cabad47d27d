"""`shifterimg login`: ask for a user's name and password, have them tried, and keep them."""

from typing import Final

from cli.errors import CliError
from cli.shifterimg.conf import Conf
from cli.shifterimg.gateways import Gateways
from cli.shifterimg.logins import Logins, payload
from cli.shifterimg.prompt import ask_login
from shared.munge import Munge

DEFAULT: Final = "default"


class LoginFailedError(CliError):
    """The registry does not take the credentials, or nobody could ask it."""

    code = "login_failed"


def login(
    conf: Conf, gateways: Gateways, logins: Logins, munge: Munge | None, location: str | None
) -> None:
    """Nothing is kept that the registry did not take."""
    if munge is None:
        raise LoginFailedError(
            "a login takes MUNGE, which keeps the password from others' eyes, and which this "
            "machine does not have: log in on a machine of the cluster"
        )
    where = location or DEFAULT
    username, password = ask_login(where)
    given = f"{username}:{password}"
    # In the credential, which is encrypted: the way to the gateway may not be.
    answer = gateways.ask(
        "POST",
        *("login", conf.system, where),
        credential=lambda: munge.encode(payload({where: given})),
    )
    if answer.status != 200:
        raise LoginFailedError(answer.error)
    logins.store(conf.system, where, given, munge)
