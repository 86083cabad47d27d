"""Who takes the scheduler's job id first does not decide what the job's user finds."""

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.distributor.sidecars import Sidecar
from services.node_agent.inside import insides
from services.node_agent.inside.pins import ALIAS
from shared.bus.connect import connect_bus
from shared.events import Readers
from tests.integration.node_agent.test_furnished_jobs import ASK, body, settings
from tests.support.agents import Place, ask, needs_root, running
from tests.support.cached import make_image
from tests.support.conditions import eventually
from tests.support.insides import enter

pytestmark = needs_root

THIEF: dict[str, Any] = {"user": 12345, "group": 12345, "extra_groups": ()}


async def as_thief(place: Place, path: str, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    done = await asyncio.to_thread(
        enter, place.socket, path, json.dumps(wanted), code=ASK, who=THIEF
    )
    status, answer = json.loads(done.stdout)
    return status, answer


async def test_a_job_s_ranks_find_what_its_own_prolog_had_made(place: Place) -> None:
    image = make_image(place, [], "this is one\n")
    known = settings(place)
    mine = body(image)
    async with running(known, connect_bus(known, "test")):
        await as_thief(place, "/v1/mounts", {**mine["images"][0], "job_id": "7"})
        wanted = {"image_id": image.image_id, "volumes": ["/srv:/opt/tools"]}
        status, _ = await as_thief(place, "/v1/jobs/7/insides", wanted)
        assert status == 200
        _, view = await ask(place, "POST", "/v1/jobs/7/prepare", mine)
        alias = place.agent_dir / "insides" / f"7{ALIAS}{image.image_id}"
        assert alias.resolve() == Path(view["insides"][0]["path"])
        # From now on it is known whose job it is.
        assert (await as_thief(place, "/v1/jobs/7/insides", wanted))[0] == 403
        await ask(place, "DELETE", "/v1/jobs/7")
        assert place.standing() == []


async def test_another_s_private_image_under_a_job_s_id_is_not_the_job_s_trouble(
    place: Place,
) -> None:
    image, secret = make_image(place, [], "one\n"), make_image(place, [], "secret\n")
    recipe = Sidecar.model_validate_json(secret.sidecar.read_bytes()).recipe
    theirs_alone = Sidecar(recipe=recipe, readers=Readers(uids=(12345,)))
    secret.sidecar.write_text(theirs_alone.model_dump_json())
    known = settings(place)
    theirs = body(secret)["images"][0]
    async with running(known, connect_bus(known, "test")):
        assert (await as_thief(place, "/v1/mounts", {**theirs, "job_id": "7"}))[0] == 200
        _, view = await ask(place, "POST", "/v1/jobs/7/prepare", body(image))
        assert view["state"] == "ready", view["message"]
        assert (await as_thief(place, "/v1/mounts", {**theirs, "job_id": "7"}))[0] == 403
        await ask(place, "DELETE", "/v1/jobs/7")


async def test_a_job_has_room_whatever_others_made_under_its_id(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insides, "_MOST_OF_A_JOB", 2)
    image = make_image(place, [], "one\n")
    known = settings(place)
    mine = body(image)
    async with running(known, connect_bus(known, "test")):
        await as_thief(place, "/v1/mounts", {**mine["images"][0], "job_id": "7"})
        found = [
            (await as_thief(place, "/v1/jobs/7/insides", wanted))[0]
            for wanted in (
                {"image_id": image.image_id, "volumes": [f"/srv:/m{number}"]} for number in range(3)
            )
        ]
        assert found == [200, 200, 422]
        _, view = await ask(place, "POST", "/v1/jobs/7/prepare", mine)
        assert view["state"] == "ready", view["message"]
        await ask(place, "DELETE", "/v1/jobs/7")


async def test_no_user_takes_a_node_s_mounts_by_jobs_of_their_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insides, "_MOST_HERE", 2)
    image = make_image(place, [], "one\n")
    known = settings(place)
    mine = body(image)
    async with running(known, connect_bus(known, "test")):
        found = []
        for job_id in ("mine-1", "mine-2", "mine-3"):
            await as_thief(place, "/v1/mounts", {**mine["images"][0], "job_id": job_id})
            wanted = {"image_id": image.image_id}
            found.append((await as_thief(place, f"/v1/jobs/{job_id}/insides", wanted))[0])
        assert found == [200, 200, 422]
        _, view = await ask(place, "POST", "/v1/jobs/7/prepare", mine)
        assert view["state"] == "ready", view["message"]
        for job_id in ("mine-1", "mine-2", "mine-3", "7"):
            await ask(place, "DELETE", f"/v1/jobs/{job_id}")


@pytest.fixture
def hanging(place: Place) -> Iterator[Path]:
    """A directory of a file system that has stopped answering."""
    source, target = place.root / "source", place.root / "hanging"
    (source / "d").mkdir(parents=True)
    target.mkdir()
    archive = place.root / "source.squashfs"
    subprocess.run(["mksquashfs", source, archive, "-quiet"], check=True, stdout=subprocess.DEVNULL)
    options = "allow_other,attr_timeout=0,entry_timeout=0"
    served = subprocess.Popen(["squashfuse", "-f", "-o", options, archive, target])
    try:
        end = time.monotonic() + 30
        while not (target / "d").exists():
            assert time.monotonic() < end
        served.send_signal(signal.SIGSTOP)
        yield target / "d"
    finally:
        served.kill()
        served.wait()
        subprocess.run(["umount", "-l", target], check=False)


async def test_a_job_ends_at_once_though_its_volume_hangs(place: Place, hanging: Path) -> None:
    image = make_image(place, [], "one\n")
    known = settings(place)
    wanted = body(image, volumes=[f"{hanging}:/data"])
    async with running(known, connect_bus(known, "test")):
        preparing = asyncio.create_task(ask(place, "POST", "/v1/jobs/7/prepare", wanted))
        pins = place.agent_dir / "insides"
        await eventually(lambda: any(pins.glob("7.*")), within=20)
        async with asyncio.timeout(15):
            assert (await ask(place, "DELETE", "/v1/jobs/7"))[0] == 204
        _, view = await preparing
        assert view["state"] == "failed"
        assert not any(pins.glob("7.*"))
        gone = "pgrep -f services.node_agent.inside.build"
        await eventually(
            lambda: subprocess.run(gone.split(), check=False, stdout=subprocess.DEVNULL).returncode,
            within=20,
        )
