"""What a pull waits for reaches whoever watches it."""

import asyncio

from cli.convert_progress import Watching
from shared.bus.embedded import EmbeddedBus
from shared.events import MAX_TEXT, PullRequested
from shared.image.recipe import PackOptions
from shared.progress import Part, ProgressReporter
from shared.waiting import Waits, waiting_for


async def test_the_latest_wait_of_all_tasks_is_told_and_no_other_works() -> None:
    ours, others = Waits(), Waits()
    gone = asyncio.Event()

    async def wait(reason: str) -> None:
        with waiting_for(reason):
            await gone.wait()

    with waiting_for("nobody hears"), ours.heard():
        first = asyncio.create_task(wait("the registry"))
        await asyncio.sleep(0)
        with waiting_for("a connection"):
            assert ours.reason == "a connection"
        assert ours.reason == "the registry"
    assert others.reason is None
    with waiting_for("not heard any more"):
        assert ours.reason == "the registry"
    gone.set()
    await first
    assert ours.reason is None


async def test_a_report_says_what_is_waited_for_unless_bytes_still_come() -> None:
    cause = PullRequested(
        correlation_id="p",
        key="k",
        attempt=1,
        reference="r",
        platform="linux/amd64",
        options=PackOptions(),
        max_dead_share=0.1,
    )
    reporter = ProgressReporter(EmbeddedBus(()), cause, lease=60, timeout=1)
    part = Part(total=100)
    reporter.expect({"sha256:" + "0" * 64: part})
    async with reporter.running():
        with waiting_for("waiting 5 s for the registry" + "!" * MAX_TEXT):
            told = reporter._report().waiting
            assert told is not None
            assert told.startswith("waiting 5 s for the registry!")
            assert len(told) == MAX_TEXT
            part.done = 50
            assert reporter._report().waiting is None
        assert reporter._report().waiting is None


async def test_a_conversion_without_services_tells_it_too() -> None:
    watching = Watching()
    with watching.waits.heard(), waiting_for("a registry"):
        told = watching.now().progress
    assert told is not None
    assert told.waiting == "a registry"
