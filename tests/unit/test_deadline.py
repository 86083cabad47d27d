"""One budget for all steps of a piece of work, and whose timeout it was."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, DrayError


def test_a_fresh_deadline_has_its_whole_budget() -> None:
    deadline = Deadline.after(60)
    assert 59 < deadline.remaining() <= 60
    assert not deadline.expired


@pytest.mark.parametrize("seconds", [0, -1, -1e9])
def test_an_expired_deadline_has_nothing_left_and_never_less(seconds: float) -> None:
    deadline = Deadline.after(seconds)
    assert deadline.remaining() == 0.0
    assert deadline.expired


@given(whole=st.floats(min_value=0, max_value=1e6), step=st.floats(min_value=0, max_value=1e6))
def test_a_step_never_outlives_the_whole(whole: float, step: float) -> None:
    deadline = Deadline.after(whole)
    bounded = deadline.sooner(step)
    assert bounded.at <= deadline.at
    assert bounded.remaining() <= step


def test_a_step_with_more_time_than_the_whole_keeps_the_whole() -> None:
    deadline = Deadline.after(1)
    assert deadline.sooner(2) is deadline


async def test_it_says_what_took_too_long_and_that_trying_again_may_help() -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        async with Deadline.after(0.01).bound("waiting for nobody"):
            await asyncio.Event().wait()
    assert caught.value.message == "timed out after 0.01 s while waiting for nobody"
    assert (caught.value.code, caught.value.status) == ("deadline_exceeded", 504)
    assert caught.value.retryable


async def test_the_budget_is_shared_by_all_steps() -> None:
    deadline = Deadline.after(0.05)

    async def many_steps() -> None:
        for _ in range(1000):
            async with deadline.bound("doing one of many short steps"):
                await asyncio.sleep(0.001)

    with pytest.raises(DeadlineExceededError, match="one of many short steps"):
        await many_steps()


async def test_a_body_that_ends_in_time_is_left_alone() -> None:
    async with Deadline.after(10).bound("counting"):
        result = sum(range(10))
    assert result == 45


async def test_the_bodys_own_errors_pass_through() -> None:
    with pytest.raises(DrayError, match="of its own"):
        async with Deadline.after(10).bound("failing"):
            raise DrayError("of its own")


async def test_a_timeout_of_somebody_else_is_not_renamed() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with Deadline.after(10).bound("listening to another"):
            raise TimeoutError("the socket's own")
    assert not isinstance(caught.value, DeadlineExceededError)


async def test_the_inner_of_two_deadlines_tells_first() -> None:
    with pytest.raises(DeadlineExceededError, match="the step"):
        async with Deadline.after(10).bound("the whole"), Deadline.after(0.01).bound("the step"):
            await asyncio.sleep(10)


async def test_cancelling_is_not_mistaken_for_running_out_of_time() -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with Deadline.after(10).bound("being cancelled"):
            entered.set()
            await asyncio.sleep(10)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
