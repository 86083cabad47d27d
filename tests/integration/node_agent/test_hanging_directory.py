"""A shared directory that stops answering: its file system is a squashfuse that was stopped."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import linux
from shared.bus.connect import connect_bus
from shared.config import Settings
from tests.support.agents import (
    PATIENCE,
    Place,
    ask,
    greeting,
    needs_root,
    needs_squashfuse,
    running,
)
from tests.support.cached import Made, caching, layer, make_image
from tests.support.conditions import eventually

pytestmark = [*needs_root, needs_squashfuse]
HUNG = 1.0
"""Seconds that a prolog gives."""


@contextlib.contextmanager
def shared(place: Place) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The images so far, as a file system of their own, and the process behind it."""
    packed, target = place.root / "shared.squashfs", place.root / "shared"
    target.mkdir()
    command: list[str | Path] = [
        "mksquashfs",
        place.root / "images",
        packed,
        "-quiet",
        "-no-progress",
    ]
    subprocess.run(command, check=True, capture_output=True)
    with subprocess.Popen(["squashfuse", "-f", packed, target]) as server:
        try:
            deadline = time.monotonic() + PATIENCE
            while not any(target.iterdir()):
                assert time.monotonic() < deadline
            yield target, server
        finally:
            server.send_signal(signal.SIGCONT)
            linux.umount(str(target), linux.MNT_DETACH)


def settings_for(place: Place, directory: Path, policy: str) -> Settings:
    settings = caching(place, "loop", policy=policy, patience=0.2)
    systems = {"local": settings.systems["local"].model_copy(update={"image_dir": directory})}
    return settings.model_copy(update={"systems": systems})


def wanted(image: Made, wait: float) -> dict[str, object]:
    pinned = {
        "image_id": image.image_id,
        "content_digest": image.content_digest,
        "size": image.size,
    }
    return {"images": [pinned], "wait": wait}


@pytest.mark.parametrize("policy", ["copy", "copy_when_busy", "in_place"])
async def test_jobs_that_want_it_fail_in_time_and_those_that_run_go_on(
    place: Place, policy: str
) -> None:
    running_one, late = (make_image(place, [layer(n)], f"{n}\n") for n in (1, 2))
    with shared(place) as (directory, server):
        settings = settings_for(place, directory, policy)
        async with running(settings, connect_bus(settings, "test")):
            _, view = await ask(place, "POST", "/v1/jobs/1/prepare", wanted(running_one, PATIENCE))
            assert view["state"] == "ready"
            server.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            _, failed = await ask(place, "POST", "/v1/jobs/2/prepare", wanted(late, HUNG))
            assert time.monotonic() - started < HUNG + 1
            assert failed["state"] == "failed"
            assert "shared file system" in failed["message"]
            if policy == "copy":
                assert greeting(view["mounts"][0]) == "1\n"
                assert len((Path(view["mounts"][0]["path"]) / "data1").read_bytes()) == 1 << 20
            for job in "12":
                assert await ask(place, "DELETE", f"/v1/jobs/{job}") == (204, {})
            stopping = time.monotonic()
        assert time.monotonic() - stopping < PATIENCE / 2, "what hangs does not hold the agent"
        server.send_signal(signal.SIGCONT)

        async def nothing_stands() -> bool:
            return not [path for path in place.standing() if path != str(directory)]

        await eventually(nothing_stands, within=PATIENCE)
