"""Tries users' logins at their registries, one request or two each."""

from typing import Final

from services.converter.registries import Registries
from services.converter.registry.errors import RegistryAccessError
from services.converter.tickets import TicketOffice, TicketSpentError
from shared.bus.interface import Bus
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import MAX_TEXT, LoginChecked, LoginRequested
from shared.logging import get_logger

log = get_logger(__name__)

CHECK_SECONDS: Final = 15.0
"""Shorter than the user is kept waiting."""
REFUSED: Final = "login_refused"


class Logins:
    """Asks registries whether they take what a user gave."""

    def __init__(
        self, bus: Bus, registries: Registries, tickets: TicketOffice, publish_timeout: float
    ) -> None:
        self._bus = bus
        self._registries = registries
        self._tickets = tickets
        self._publish_timeout = publish_timeout

    async def on_requested(self, event: LoginRequested) -> None:
        code, message = None, ""
        try:
            await self._try(event, Deadline.after(CHECK_SECONDS))
        except TicketSpentError:
            log.info("login_not_ours")
            return
        except RegistryAccessError as exc:
            code, message = REFUSED, exc.message
        except DrayError as exc:
            code, message = exc.code, exc.message
        checked = LoginChecked(
            correlation_id=event.correlation_id,
            causation_id=event.id,
            login_id=event.login_id,
            code=code,
            message=message[:MAX_TEXT],
        )
        await self._bus.publish(checked, Deadline.after(self._publish_timeout))

    async def _try(self, event: LoginRequested, deadline: Deadline) -> None:
        key = f"check/{event.login_id}"
        user = await self._tickets.credentials("login", key, event.ticket, deadline)
        client = await self._registries.client(event.registry, user)
        await client.log_in(deadline)
