"""What many follow is looked at once, only while somebody follows, and errors reach all of them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import pytest

from services.gateway.feed import TooManyFollowersError
from services.gateway.live.looking import GatewayStoppingError, Looking, heard
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError
from tests.support.conditions import eventually


class Clockwork:
    """Something to look at that ticks when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.tick = asyncio.Event()
        self.broken = False

    async def look(self, key: str) -> AsyncGenerator[str, None]:
        self.begun.append(key)
        try:
            number = 0
            while True:
                if self.broken:
                    raise CatalogUnavailableError("away")
                yield f"{key}{number}"
                number += 1
                await self.tick.wait()
                self.tick.clear()
        finally:
            self.ended.append(key)


async def test_many_followers_of_one_thing_cost_one_look() -> None:
    works = Clockwork()
    looking = Looking(works.look)
    assert works.begun == []
    events = [asyncio.Event() for _ in range(20)]
    with ExitStack() as stack:
        seen = [stack.enter_context(looking.following("a", event)) for event in events]
        for number in range(3):
            for event in events:
                assert await heard(event, Deadline.after(5))
            values = [each.now() for each in seen]
            assert values == [f"a{number}"] * 20
            assert len(set(map(id, values))) == 1
            works.tick.set()
        late = asyncio.Event()
        with looking.following("a", late) as joined:
            assert await heard(late, Deadline.after(5))
            assert joined.now() is not None
        assert works.begun == ["a"]
        assert works.ended == []
    await eventually(lambda: works.ended == ["a"], within=5)
    assert len(looking) == 0


async def test_an_error_is_told_to_all_and_who_comes_later_looks_anew() -> None:
    works = Clockwork()
    works.broken = True
    looking = Looking(works.look)
    one, other = asyncio.Event(), asyncio.Event()
    with looking.following("a", one) as first, looking.following("a", other) as second:
        for event, seen in ((one, first), (other, second)):
            assert await heard(event, Deadline.after(5))
            with pytest.raises(CatalogUnavailableError):
                seen.now()
        works.broken = False
        with looking.following("a", one) as third:
            assert await heard(one, Deadline.after(5))
            assert third.now() == "a0"
    assert works.begun == ["a", "a"]
    await looking.stop()


async def test_followers_are_bounded_and_time_is_over_though_there_are_news() -> None:
    works = Clockwork()
    looking = Looking(works.look, most=1)
    news = asyncio.Event()
    with looking.following("a", news):
        with pytest.raises(TooManyFollowersError), looking.following("b", news):
            pass
        news.set()
        assert not await heard(news, Deadline.after(0))
    with looking.following("b", news):
        assert await heard(news, Deadline.after(5))
    await looking.stop()


async def test_who_follows_a_gateway_that_stops_is_let_go() -> None:
    works = Clockwork()
    looking = Looking(works.look)
    news = asyncio.Event()
    with looking.following("a", news) as seen:
        assert await heard(news, Deadline.after(5))
        await looking.stop()
        assert await heard(news, Deadline.after(5))
        with pytest.raises(GatewayStoppingError):
            seen.now()
    with pytest.raises(GatewayStoppingError), looking.following("a", news):
        pass
    assert works.ended == ["a"]


async def test_operators_follow_however_many_others_do() -> None:
    works = Clockwork()
    looking = Looking(works.look, most=1)
    news = asyncio.Event()
    with looking.following("a", news, free=True), looking.following("a", news):
        with looking.following("b", news, free=True) as seen:
            assert await heard(news, Deadline.after(5))
            assert seen.error is None
        with pytest.raises(TooManyFollowersError), looking.following("b", news):
            pass
    with looking.following("b", news):
        pass
    await looking.stop()
