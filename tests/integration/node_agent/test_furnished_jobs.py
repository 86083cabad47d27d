"""A job's images as its prolog asks for them and its user enters them, through a real agent."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from services.node_agent.inside.pins import ALIAS
from shared.bus.connect import connect_bus
from shared.config import Settings
from tests.support.agents import PATIENCE, Place, ask, needs_root, running
from tests.support.cached import make_image
from tests.support.insides import NOBODY, enter
from tests.support.squashfs import PlacedImage
from tests.support.users import AS_NOBODY, let_everybody_in

pytestmark = needs_root


def body(image: PlacedImage, **more: Any) -> dict[str, Any]:
    pinned = {
        "image_id": image.image_id,
        "content_digest": image.content_digest,
        "size": image.size,
    }
    return {"images": [pinned], "wait": PATIENCE, "uid": NOBODY, "gid": NOBODY, **more}


def settings(place: Place, **inside: Any) -> Settings:
    let_everybody_in(place.root)
    return Settings.model_validate({**place.document("loop"), "inside": inside})


async def test_a_prolog_has_the_image_put_together_for_its_user(
    place: Place, tmp_path: Path
) -> None:
    image = make_image(place, [], "this is one\n")
    site, own = place.root / "site", place.root / "own"
    for directory in (site, own):
        directory.mkdir()
        directory.chmod(0o777)
        (directory / "file").write_text(directory.name)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "tool.yaml").write_text(f"binds: [{{from: {site}/file, to: /tool/file}}]\n")
    known = settings(place, site_fs=[str(site)], modules=str(modules))
    async with running(known, connect_bus(known, "test")):
        wanted = body(image, volumes=[f"{own}:/own"], modules=["tool"])
        status, view = await ask(place, "POST", "/v1/jobs/7/prepare", wanted)
        assert (status, view["state"]) == (200, "ready"), view
        (inside,) = view["insides"]
        look = "import os,sys; from pathlib import Path; from shared.inside.enter import join\n"
        look += "join(Path(sys.argv[1]))\nfor p in sys.argv[2:]: print(Path(p).read_text())"
        done = enter(
            Path(inside["path"]), "/own/file", "/tool/file", f"{site}/file", "/greeting", code=look
        )
        assert done.stdout.split("\n")[:4] == ["own", "site", "site", "this is one"], done.stderr
        alias = place.agent_dir / "insides" / f"7{ALIAS}{image.image_id}"
        assert alias.resolve() == Path(inside["path"])
        again = await ask(place, "POST", "/v1/jobs/7/prepare", wanted)
        assert again[1]["insides"] == view["insides"]
        assert (await ask(place, "DELETE", "/v1/jobs/7"))[0] == 204
        assert place.standing() == []
        assert list((place.agent_dir / "insides").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"volumes": ["/nowhere/at/all:/data"]}, "No such file"),
        ({"volumes": ["/srv:/etc"]}, "would hide /etc"),
        ({"volumes": ["nonsense"]}, "a source and a target"),
        ({"modules": ["absent"]}, "no module 'absent'"),
    ],
)
async def test_what_cannot_be_had_fails_the_job_with_the_reason(
    place: Place, more: dict[str, Any], says: str
) -> None:
    image = make_image(place, [], "this is one\n")
    known = settings(place)
    async with running(known, connect_bus(known, "test")):
        status, view = await ask(place, "POST", "/v1/jobs/7/prepare", body(image, **more))
        assert (status, view["state"]) == (200, "failed")
        assert says in view["message"]
        await ask(place, "DELETE", "/v1/jobs/7")
        assert place.standing() == []


async def test_an_inside_outlives_its_agent_and_ends_with_the_job(place: Place) -> None:
    image = make_image(place, [], "this is one\n")
    known = settings(place)
    async with running(known, connect_bus(known, "test")):
        _, view = await ask(place, "POST", "/v1/jobs/7/prepare", body(image))
    (inside,) = view["insides"]
    pinned = Path(inside["path"])
    look = "import sys; from pathlib import Path; from shared.inside.enter import join\n"
    look += "join(Path(sys.argv[1])); print(Path('/greeting').read_text())"
    assert enter(pinned, code=look).stdout == "this is one\n\n"
    async with running(known, connect_bus(known, "test")):
        assert enter(pinned, code=look).stdout == "this is one\n\n"
        assert (await ask(place, "DELETE", "/v1/jobs/7"))[0] == 204
        assert not pinned.exists()
        assert place.standing() == []


ASK = """
import json, sys
from cli.http import UnixConnection
connection = UnixConnection(sys.argv[1], 60)
connection.request("POST", sys.argv[2], sys.argv[3], {"Content-Type": "application/json"})
answer = connection.getresponse()
print(json.dumps([answer.status, json.loads(answer.read())]))
"""


async def test_a_user_asks_for_another_inside_in_their_own_job_only(place: Place) -> None:
    image = make_image(place, [], "this is one\n")
    known = settings(place)
    other = {"user": 12345, "group": 12345, "extra_groups": ()}
    wanted = json.dumps({"image_id": image.image_id, "volumes": ["/srv:/mine"]})

    def asked(job: str, who: dict[str, Any]) -> Any:
        done = enter(place.socket, f"/v1/jobs/{job}/insides", wanted, code=ASK, who=who)
        return json.loads(done.stdout or "null"), done.stderr

    async with running(known, connect_bus(known, "test")):
        await ask(place, "POST", "/v1/jobs/7/prepare", body(image))
        (status, view), _ = await asyncio.to_thread(asked, "7", AS_NOBODY)
        assert status == 200, view
        assert Path(view["path"]).is_dir()
        (status, _), _ = await asyncio.to_thread(asked, "7", other)
        assert status == 403
        (status, _), _ = await asyncio.to_thread(asked, "8", AS_NOBODY)
        assert status == 404
        await ask(place, "DELETE", "/v1/jobs/7")
        assert place.standing() == []


FILL = """
import os, sys
from pathlib import Path
from shared.inside.enter import join
join(Path(sys.argv[1]))
held = Path(sys.argv[2])
(held / "mine").write_text("kept")
print(os.statvfs(held).f_frsize * os.statvfs(held).f_blocks >> 20, held.stat().st_uid)
try:
    with open(held / "much", "wb") as file:
        for _ in range(400):
            file.write(bytes(1 << 20))
except OSError as exc:
    print(exc.strerror)
"""


async def test_a_node_has_a_file_system_of_its_own_that_is_as_large_as_was_said(
    place: Place,
) -> None:
    image = make_image(place, [], "this is one\n")
    scratch = place.root / "scratch"
    scratch.mkdir()
    known = settings(place)
    volume = f"{scratch}:/tmp:perNodeCache=size=300M"
    async with running(known, connect_bus(known, "test")):
        _, view = await ask(place, "POST", "/v1/jobs/7/prepare", body(image, volumes=[volume]))
        assert view["state"] == "failed"
        assert "cannot write there" in view["message"]
        scratch.chmod(0o777)
        _, view = await ask(place, "POST", "/v1/jobs/7/prepare", body(image, volumes=[volume]))
        assert view["state"] == "ready", view["message"]
        pinned = Path(view["insides"][0]["path"])
        done = await asyncio.to_thread(enter, pinned, "/tmp", code=FILL)
        size, uid, *full = done.stdout.split()
        assert 200 < int(size) <= 300, done.stderr
        assert int(uid) == NOBODY
        assert " ".join(full) == "No space left on device"
        assert list(scratch.iterdir()) == []
        assert (await ask(place, "DELETE", "/v1/jobs/7"))[0] == 204
        assert place.standing() == []
        loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
        assert not [path for path in loops if str(place.root) in path]
