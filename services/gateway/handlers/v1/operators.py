"""What only operators do: dead letters."""

from collections import defaultdict

from aiohttp import web

from services.gateway.auth.identity import Principal, Scope, principal_of
from shared.api import (
    API,
    DeadLettersView,
    DeadLetterView,
    ReplayRequest,
    ReplayView,
)
from shared.bus.interface import Bus, Letters, Replayed
from shared.deadline import Deadline
from shared.errors import BusUnavailableError, NotFoundError, UndeliverableError
from shared.http.answers import answer, read_body
from shared.http.operation import operation
from shared.logging import get_logger
from shared.models import Strict

LETTERS_LIMIT = 200
LETTER_SHOWN = 4096
LOGGED = 100
"""Ids of letters in one line of the log."""
REPLAY_SECONDS = 20.0

log = get_logger(__name__)


class LetterPath(Strict):
    """Which dead letter."""

    letter_id: str


class OperatorHandlers:
    """The events that no service could digest."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def routes(self) -> list[web.RouteDef]:
        letters = f"{API}/admin/dead-letters"
        return [
            web.get(letters, self.list_dead_letters),
            web.post(f"{letters}/replay", self.replay_dead_letters),
            web.post(f"{letters}/{{letter_id}}/replay", self.replay_dead_letter),
            web.delete(f"{letters}/{{letter_id}}", self.discard_dead_letter),
        ]

    @operation(gives={200: DeadLettersView}, problems=(BusUnavailableError,), needs="admin")
    async def list_dead_letters(self, request: web.Request) -> web.Response:
        """Events that no service could digest, at most 200, and how many there are."""
        principal_of(request).require(Scope.ADMIN)
        letters = await self._bus.dead_letters(LETTERS_LIMIT)
        views = tuple(
            DeadLetterView.model_validate({**dict(letter), "body": letter.body[:LETTER_SHOWN]})
            for letter in letters.items
        )
        return answer(DeadLettersView(items=views, total=letters.total))

    @operation(
        body=ReplayRequest,
        gives={200: ReplayView},
        problems=(BusUnavailableError,),
        needs="admin",
    )
    async def replay_dead_letters(self, request: web.Request) -> web.Response:
        """Give many events once more to the queues that they came from.

        Those with these ids, those of one queue, or with `{}` all. Very many take more than one
        request: what is left says whether to ask again. What dies again meanwhile is left, as is
        what came from a queue that does not exist any more.
        """
        principal = principal_of(request)
        principal.require(Scope.ADMIN)
        asked = await read_body(request, ReplayRequest)
        ids = None if asked.ids is None else frozenset(asked.ids)
        done = await self._replay(principal, Letters(ids, asked.queue))
        return answer(ReplayView(replayed=len(done.sent), left=done.left))

    @operation(
        path=LetterPath,
        gives={204: None},
        problems=(NotFoundError, UndeliverableError, BusUnavailableError),
        needs="admin",
    )
    async def replay_dead_letter(self, request: web.Request) -> web.Response:
        """Give an event once more to the queue that it came from."""
        principal = principal_of(request)
        principal.require(Scope.ADMIN)
        letter_id = request.match_info["letter_id"]
        done = await self._replay(principal, Letters(ids=frozenset({letter_id})))
        if done.homeless and not done.sent:
            queue = ", ".join(done.homeless)
            raise UndeliverableError(
                f"the queue '{queue}' of this dead letter is gone; discard the letter if it is "
                "not to come back"
            )
        if not done.sent:
            raise _no_letter(letter_id)
        return web.Response(status=204)

    @operation(
        path=LetterPath,
        gives={204: None},
        problems=(NotFoundError, BusUnavailableError),
        needs="admin",
    )
    async def discard_dead_letter(self, request: web.Request) -> web.Response:
        """Remove an event for good: nobody will ever handle it."""
        principal = principal_of(request)
        principal.require(Scope.ADMIN)
        letter_id = request.match_info["letter_id"]
        queue = await self._bus.discard(letter_id, Deadline.after(REPLAY_SECONDS))
        if queue is None:
            raise _no_letter(letter_id)
        log.info(
            "dead_letter_discarded",
            letter=letter_id,
            queue=queue,
            by=principal.name,
            uid=principal.uid,
        )
        return web.Response(status=204)

    async def _replay(self, principal: Principal, wanted: Letters) -> Replayed:
        done = await self._bus.replay(wanted, Deadline.after(REPLAY_SECONDS))
        by_queue: defaultdict[str, list[str]] = defaultdict(list)
        for letter_id, queue in done.sent:
            by_queue[queue].append(letter_id)
        for queue, letters in by_queue.items():
            for start in range(0, len(letters), LOGGED):
                log.info(
                    "dead_letters_replayed",
                    letters=letters[start : start + LOGGED],
                    queue=queue,
                    by=principal.name,
                    uid=principal.uid,
                )
        return done


def _no_letter(letter_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no dead letter {letter_id}; it may be replayed or discarded already"
    )
