"""Puts together what private images need: sealed passwords, tickets, readers, owners."""

from dataclasses import dataclass

from services.gateway.adoption import Adoption
from services.gateway.auth.secrets import SiteSecret
from services.gateway.handlers.tickets import TicketHandlers
from services.gateway.logins import Logins
from services.gateway.readers import ReadersBook
from services.gateway.sealing import Sealer
from services.gateway.tickets import Tickets
from shared.catalog.interface import Catalog
from shared.config import Settings


@dataclass(frozen=True, slots=True)
class Private:
    """What the gateway needs of it."""

    logins: Logins
    readers: ReadersBook
    adoption: Adoption
    tickets: TicketHandlers


def private_images(settings: Settings, catalog: Catalog, secret: SiteSecret) -> Private:
    timeout = settings.catalog.timeout
    sealer = Sealer(secret)
    readers = ReadersBook(catalog, timeout)
    tickets = Tickets(catalog, sealer, lease=settings.pull.lease, timeout=timeout)
    return Private(
        Logins(catalog, sealer, days=settings.gateway.login_days, timeout=timeout),
        readers,
        Adoption(catalog, readers, timeout),
        TicketHandlers(tickets),
    )
