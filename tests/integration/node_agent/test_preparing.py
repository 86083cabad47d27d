"""What prologs and epilogs ask of the agent, with real mounts."""

import asyncio
import os
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.distributor.sidecars import Sidecar
from shared.bus.connect import connect_bus
from shared.deadline import Deadline
from shared.events import JobReleased, Readers
from shared.image.recipe import ImageConfig
from shared.models import utcnow
from tests.support.agents import PATIENCE, Place, ask, greeting, needs_root, real_mounts, running
from tests.support.cached import allocation, make_image
from tests.support.conditions import eventually
from tests.support.squashfs import PlacedImage
from tests.support.users import ordinary_environment, ordinary_python

SOMEBODY = 4242


def pinned(image: PlacedImage) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "content_digest": image.content_digest,
        "size": image.size,
    }


def body(*images: PlacedImage, wait: float = PATIENCE, uid: int | None = None) -> dict[str, Any]:
    return {"images": [pinned(image) for image in images], "wait": wait, "uid": uid}


@pytest.mark.parametrize("mount", real_mounts)
async def test_given_images_are_mounted_without_a_bus_until_the_epilog(
    place: Place, mount: str
) -> None:
    settings = place.settings(mount)
    one, two = place.image("one"), place.image("two")
    async with running(settings, connect_bus(settings, "test")):
        answers = await asyncio.gather(
            *(ask(place, "POST", "/v1/jobs/77/prepare", body(one, two)) for _ in range(5))
        )
        assert {status for status, _ in answers} == {200}
        for _, view in answers:
            assert view["state"] == "ready"
            assert [greeting(mount) for mount in view["mounts"]] == [
                "this is one\n",
                "this is two\n",
            ]
            assert [mount["from_cache"] for mount in view["mounts"]] == [False, False]
        assert await ask(place, "DELETE", "/v1/jobs/77") == (204, {})
        assert place.standing() == []
        # The scheduler runs the same job again.
        assert (await ask(place, "POST", "/v1/jobs/77/prepare", body(one)))[1]["state"] == "ready"
        assert await ask(place, "DELETE", "/v1/jobs/77") == (204, {})


async def test_without_images_the_announcement_is_waited_for(place: Place) -> None:
    settings = place.settings("unpack")
    bus = connect_bus(settings, "test")
    image = place.image("announced")
    async with running(settings, bus):
        waiting = asyncio.create_task(ask(place, "POST", "/v1/jobs/5/prepare", {"wait": PATIENCE}))
        await bus.publish(allocation("5", image), Deadline.after(PATIENCE))
        _, view = await waiting
        assert view["state"] == "ready"
        assert [greeting(mount) for mount in view["mounts"]] == ["this is announced\n"]
        # One that comes after it finds the same.
        assert (await ask(place, "POST", "/v1/jobs/5/prepare", {}))[1]["state"] == "ready"


async def test_an_announcement_that_never_comes_is_a_reason_in_time(place: Place) -> None:
    settings = place.settings("unpack")
    async with running(settings, connect_bus(settings, "test")):
        started = time.monotonic()
        status, view = await ask(place, "POST", "/v1/jobs/6/prepare", {"wait": 0.5})
        assert time.monotonic() - started < PATIENCE
        assert (status, view["state"]) == (200, "failed")
        assert "announcement of job 6" in view["message"]
        assert (await ask(place, "GET", "/v1/status"))[1]["jobs"] == {}


async def test_a_missing_image_is_a_reason_for_the_user(place: Place) -> None:
    settings = place.settings("unpack")
    here, gone = place.image("here"), place.image("gone")
    gone.path.unlink()
    async with running(settings, connect_bus(settings, "test")):
        status, view = await ask(place, "POST", "/v1/jobs/7/prepare", body(here, gone))
        assert (status, view["state"], view["mounts"]) == (200, "failed", [])
        assert gone.image_id in view["message"]
        assert "pull it" in view["message"]
        assert await ask(place, "DELETE", "/v1/jobs/7") == (204, {})
        assert place.standing() == []


async def test_a_shared_directory_that_hangs_costs_the_job_its_time_and_no_more(
    place: Place,
) -> None:
    settings = place.settings("unpack")
    hung, fine = place.image("hung"), place.image("fine")
    hung.path.unlink()
    os.mkfifo(hung.path)  # to open it takes for ever
    async with running(settings, connect_bus(settings, "test")):
        status, view = await ask(place, "POST", "/v1/jobs/8/prepare", body(hung, wait=1.0))
        assert (status, view["state"]) == (200, "failed")
        assert "shared file system" in view["message"]
        assert (await ask(place, "POST", "/v1/jobs/9/prepare", body(fine)))[1]["state"] == "ready"
        assert await ask(place, "DELETE", "/v1/jobs/8") == (204, {})
        assert await ask(place, "DELETE", "/v1/jobs/9") == (204, {})
    os.close(os.open(hung.path, os.O_RDWR | os.O_NONBLOCK))  # lets the thread go


async def test_a_late_release_of_the_last_job_leaves_a_prepared_one_alone(place: Place) -> None:
    settings = place.settings("unpack")
    bus = connect_bus(settings, "test")
    image = place.image("again")
    async with running(settings, bus):
        assert (await ask(place, "POST", "/v1/jobs/5/prepare", body(image)))[1]["state"] == "ready"
        soon = Deadline.after(PATIENCE)
        late = JobReleased(correlation_id="5", node="n1", job_id="5")
        await bus.publish(late.model_copy(update={"time": utcnow() - timedelta(hours=1)}), soon)
        await bus.publish(allocation("6", image), soon)  # comes after it

        async def both() -> bool:
            return set((await ask(place, "GET", "/v1/status"))[1]["jobs"]) == {"5", "6"}

        await eventually(both, within=PATIENCE)
        await bus.publish(JobReleased(correlation_id="5", node="n1", job_id="5"), soon)

        async def released() -> bool:
            return set((await ask(place, "GET", "/v1/status"))[1]["jobs"]) == {"6"}

        await eventually(released, within=PATIENCE)


@pytest.mark.root
@pytest.mark.parametrize("mount", [pytest.param("loop", marks=needs_root)])
async def test_a_private_image_is_opened_to_the_job_s_user_alone(place: Place, mount: str) -> None:
    settings = place.settings(mount)
    image = make_image(place, [])
    recipe = Sidecar.model_validate_json(image.sidecar.read_bytes()).recipe
    readers = Readers(uids=(SOMEBODY,))
    image.sidecar.write_text(Sidecar(recipe=recipe, readers=readers).model_dump_json())
    async with running(settings, connect_bus(settings, "test")):
        wrong = body(image, uid=SOMEBODY + 1)
        _, view = await ask(place, "POST", "/v1/jobs/1/prepare", wrong)
        assert view["state"] == "failed"
        assert "not yours" in view["message"]
        _, view = await ask(place, "POST", "/v1/jobs/2/prepare", body(image, uid=SOMEBODY))
        assert view["state"] == "ready"
        path = Path(view["mounts"][0]["path"])
        assert await asyncio.to_thread(_can_enter, path, SOMEBODY)
        assert not await asyncio.to_thread(_can_enter, path, SOMEBODY + 1)
        assert await ask(place, "DELETE", "/v1/jobs/2") == (204, {})


def _can_enter(path: Path, uid: int) -> bool:
    who: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []}
    return subprocess.run(["test", "-e", path / "greeting"], check=False, **who).returncode == 0


@pytest.mark.parametrize("mount", [pytest.param("loop", marks=needs_root)])
async def test_what_an_image_runs_is_told_to_those_who_may_use_it(place: Place, mount: str) -> None:
    image = make_image(place, [])
    settings = place.settings(mount)
    sidecar = Sidecar.model_validate_json(image.sidecar.read_bytes())
    config = ImageConfig(env=("A=b",), entrypoint=("tini",), cmd=("sh",), workdir="/srv")
    for readers in (None, Readers(uids=(SOMEBODY,))):
        described = sidecar.recipe.model_copy(update={"config": config})
        image.sidecar.write_text(Sidecar(recipe=described, readers=readers).model_dump_json())
        async with running(settings, connect_bus(settings, "test")):
            path = f"/v1/images/{image.image_id}"
            status, program = await ask(place, "GET", path)
            expected = {"image_id": image.image_id, **config.model_dump(mode="json")}
            assert (status, program) == (200, {name: expected[name] for name in program})
            assert set(program) == {"image_id", "env", "entrypoint", "cmd", "workdir"}
            private = readers is not None
            assert await asyncio.to_thread(_asked_as, place.socket, path, SOMEBODY) == 200
            stranger = await asyncio.to_thread(_asked_as, place.socket, path, SOMEBODY + 1)
            assert stranger == (404 if private else 200)
            assert (await ask(place, "GET", f"/v1/images/{'0' * 64}"))[0] == 404


def _asked_as(socket: Path, path: str, uid: int) -> int:
    """The status of the answer that this user gets."""
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(f'GET {sys.argv[2]} HTTP/1.0\\r\\nHost: a\\r\\n\\r\\n'.encode())\n"
        "print(s.recv(100).split()[1].decode())\n"
    )
    who: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []}
    done = subprocess.run(
        [ordinary_python(), "-c", code, str(socket), path],
        env=ordinary_environment(), cwd="/", capture_output=True, text=True, check=True, **who,
    )  # fmt: skip
    return int(done.stdout)
