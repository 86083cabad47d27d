"""The commands about events that no service could digest."""

from dataclasses import dataclass
from urllib.parse import quote

from cli import show
from cli.answers import read_time, reading
from cli.errors import UsageError
from cli.gateway import Gateway
from cli.tables import PLAIN, Column, Style, table

LETTERS = "/admin/dead-letters"


@dataclass(frozen=True, slots=True)
class DeadWish:
    """What somebody wants with dead letters; nothing of it: to see them."""

    replay: str | None = None
    replay_all: bool = False
    queue: str | None = None
    discard: str | None = None

    def check(self) -> None:
        if (self.replay is not None) + self.replay_all + (self.discard is not None) > 1:
            raise UsageError("--replay, --replay-all and --discard: one of them at a time")
        if self.queue is not None and not self.replay_all:
            raise UsageError("--queue says which events --replay-all sends; name both")


def dead(gateway: Gateway, wish: DeadWish, style: Style = PLAIN, *, json: bool) -> int:
    wish.check()
    if wish.replay is not None:
        return _replay(gateway, wish.replay, json=json)
    if wish.replay_all:
        return _replay_all(gateway, wish.queue, json=json)
    if wish.discard is not None:
        return _discard(gateway, wish.discard, json=json)
    return _show(gateway, style, json=json)


def _show(gateway: Gateway, style: Style, *, json: bool) -> int:
    answer = gateway.call("GET", LETTERS).body
    letters = list(answer.get("items", ()))
    total = max(len(letters), answer.get("total", 0))
    if json:
        show.document({"items": letters, "total": total})
        return 0
    with reading("the dead letters"):
        rows = [
            (
                str(letter["id"]),
                str(letter["queue"]),
                str(letter["deliveries"]),
                show.age(read_time(letter["died_at"])) if letter["died_at"] else "",
                str(letter["reason"]),
            )
            for letter in letters
        ]
    columns = (
        Column("ID", worth=9),
        Column("QUEUE", worth=7),
        Column("TRIED", worth=2, right=True),
        Column("DIED", worth=3),
        Column("REASON", worth=8, elastic=True),
    )
    if table(columns, rows, "No event has failed for good.", style) and style == PLAIN:
        if total > len(rows):
            print(f"\nThese are the first {len(rows)} of {total}.")
        print("\nSend one to its queue again with: dray queue dead --replay ID")
        print("or all, when their cause is gone: dray queue dead --replay-all")
    return 0


def _replay(gateway: Gateway, letter_id: str, *, json: bool) -> int:
    gateway.call("POST", f"{LETTERS}/{quote(letter_id, safe='')}/replay")
    if json:
        show.document({"replayed": letter_id})
    else:
        print(f"Event {show.plain(letter_id)} is in its queue again.")
    return 0


def _replay_all(gateway: Gateway, queue: str | None, *, json: bool) -> int:
    """Very many take several requests; those that fail at once again are not sent again."""
    body = {} if queue is None else {"queue": queue}
    replayed, most = 0, _how_many(gateway, queue)
    while True:
        answer = gateway.call("POST", f"{LETTERS}/replay", body=body).body
        with reading("the answer"):
            went, left = int(answer["replayed"]), int(answer["left"])
        replayed += went
        if not went or not left or replayed >= most:
            break
    if json:
        show.document({"replayed": replayed, "left": left})
        return 0
    if replayed:
        verb = "is in its queue" if replayed == 1 else "are in their queues"
        print(f"{show.count(replayed, 'event')} {verb} again.")
    else:
        print("There was nothing to send again.")
    if left:
        print(f"{show.count(left, 'dead letter')} left: see them with dray queue dead")
    return 0


def _how_many(gateway: Gateway, queue: str | None) -> int:
    """Those of a queue, as far as they can be told apart; else all."""
    answer = gateway.call("GET", LETTERS).body
    with reading("the dead letters"):
        queues = [str(letter["queue"]) for letter in answer["items"]]
        total = max(len(queues), int(answer.get("total", 0)))
    return queues.count(queue) if queue is not None and total == len(queues) else total


def _discard(gateway: Gateway, letter_id: str, *, json: bool) -> int:
    gateway.call("DELETE", f"{LETTERS}/{quote(letter_id, safe='')}")
    if json:
        show.document({"discarded": letter_id})
    else:
        print(f"Event {show.plain(letter_id)} is gone for good: nobody will handle it.")
    return 0
