"""Where converters fetch, for a ticket, what a registry wants to hear from a user.

The ticket is the proof: 256 random bits that only an event holds, good once and only while the
attempt that it was made for has not begun. So the route needs no other, which a site would have
to hand out to its converters; nor may a site's setting about the public stand in its way.
"""

from aiohttp import web

from services.gateway.tickets import Tickets
from shared.api import TICKETS, TicketRequest, TicketView
from shared.http.answers import answer, read_body
from shared.http.operation import internal

MAX_BODY = 4096


class TicketHandlers:
    """One route, for services only."""

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets

    def routes(self) -> list[web.RouteDef]:
        return [web.post(TICKETS, self.redeem)]

    @internal
    async def redeem(self, request: web.Request) -> web.Response:
        # Whoever has no length to tell is no converter.
        if request.content_length is None or request.content_length > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
        login = await self._tickets.redeem(await read_body(request, TicketRequest))
        view = TicketView(username=login.username, password=login.password)
        return answer(view, headers={"Cache-Control": "no-store"})
