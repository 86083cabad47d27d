"""What only operators do: dead letters."""

from aiohttp import web

from services.gateway.auth.identity import Scope, principal_of
from shared.api import API, DeadLettersView, DeadLetterView
from shared.bus.interface import Bus
from shared.deadline import Deadline
from shared.errors import BusUnavailableError, NotFoundError
from shared.http.answers import answer
from shared.http.operation import operation
from shared.models import Strict

LETTERS_LIMIT = 200
LETTER_SHOWN = 4096
REPLAY_SECONDS = 10.0


class LetterPath(Strict):
    """Which dead letter."""

    letter_id: str


class OperatorHandlers:
    """The events that no service could digest."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/admin/dead-letters", self.list_dead_letters),
            web.post(f"{API}/admin/dead-letters/{{letter_id}}/replay", self.replay_dead_letter),
        ]

    @operation(gives={200: DeadLettersView}, problems=(BusUnavailableError,), needs="admin")
    async def list_dead_letters(self, request: web.Request) -> web.Response:
        """Events that no service could digest, at most 200."""
        principal_of(request).require(Scope.ADMIN)
        letters = await self._bus.dead_letters(LETTERS_LIMIT)
        views = tuple(
            DeadLetterView.model_validate({**dict(letter), "body": letter.body[:LETTER_SHOWN]})
            for letter in letters
        )
        return answer(DeadLettersView(items=views))

    @operation(
        path=LetterPath,
        gives={204: None},
        problems=(NotFoundError, BusUnavailableError),
        needs="admin",
    )
    async def replay_dead_letter(self, request: web.Request) -> web.Response:
        """Give an event once more to the queue that it came from."""
        principal_of(request).require(Scope.ADMIN)
        letter_id = request.match_info["letter_id"]
        if not await self._bus.replay(letter_id, Deadline.after(REPLAY_SECONDS)):
            raise NotFoundError(f"there is no dead letter {letter_id}; it may be replayed already")
        return web.Response(status=204)
