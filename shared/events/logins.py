"""Between the gateway and the converters: are these credentials good at that registry?"""

from typing import Annotated, Literal

from pydantic import Field

from shared.events.base import Event, ShortText
from shared.events.pulls import Ticket


class LoginRequested(Event):
    """To a converter: fetch the credentials with the ticket, and try them."""

    type: Literal["login.requested"] = "login.requested"
    login_id: Annotated[str, Field(max_length=64)]
    registry: Annotated[str, Field(min_length=1, max_length=255)]
    ticket: Ticket


class LoginChecked(Event):
    """From a converter: what the registry said. `code` is None where it took them."""

    type: Literal["login.checked"] = "login.checked"
    login_id: Annotated[str, Field(max_length=64)]
    code: Annotated[str, Field(max_length=64)] | None = None
    message: ShortText = ""
