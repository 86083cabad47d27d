"""Which requests a gateway traces: nobody's page or program decides what a site records."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.gateway.auth.identity import Scope
from shared import tracing
from tests.support.two_gateways import Pair, pair

THEIRS = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
OURS = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
PULL = {"reference": "no.registry.invalid/app:1"}


class Begun:
    """A span that goes nowhere."""

    traceparent = OURS

    def note(self, attributes: tracing.Attributes) -> None:
        pass

    def end(self, failure: str | None) -> None:
        pass


@dataclass
class Keeper:
    """The names of spans, and whose children they are."""

    spans: list[tuple[str, str | None]] = field(default_factory=list)

    def begin(
        self,
        service: str,
        name: str,
        kind: tracing.Kind,
        parent: str | None,
        attributes: tracing.Attributes,
    ) -> Begun:
        if kind == "server":
            self.spans.append((name, parent))
        return Begun()


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    keeper = Keeper()
    tracing.recorded_by(keeper)
    yield keeper
    tracing.recorded_by(None)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path, f"sqlite:///{tmp_path}/catalog.db") as running:
        yield running


async def test_a_users_trace_goes_on_and_a_strangers_does_not(two: Pair, keeper: Keeper) -> None:
    ask, token = two.a.ask, f"Bearer {two.token(4201, Scope.PULL)}"
    assert (await ask("/queue", traceparent=THEIRS)).status == 200
    assert keeper.spans == [], "a stranger has reading recorded"
    assert (await ask("/pulls", "POST", PULL, traceparent=THEIRS)).status == 202
    assert keeper.spans == [("POST /api/v1/pulls", None)], "a stranger's trace is none of ours"
    keeper.spans.clear()
    assert (await ask("/queue", traceparent=THEIRS, authorization=token)).status == 200
    assert keeper.spans == [("GET /api/v1/queue", THEIRS)]


async def test_what_is_not_there_begins_no_trace(two: Pair, keeper: Keeper) -> None:
    async with two.a.network.post(f"{two.a.url}/nothing/is/here") as answer:
        assert answer.status == 404
    assert (await two.a.ask("/queue", "POST", {})).status == 405
    assert keeper.spans == []
