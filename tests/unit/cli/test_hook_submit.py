"""`dray hook submit`: what a job's environment is to hold, or why the job cannot be."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from shared.states import State
from tests.support.scripted_gateway import Script, problem, says, streams
from tests.support.views import failed, image_view, pull_view, pulling

Served = tuple[str, Script]
LOOKUP = "GET /api/v1/images/_/docker/alpine%3A3"
PULL = "POST /api/v1/pulls"
LOOK = "GET /api/v1/pulls/pull-1"
FOLLOW = "GET /api/v1/pulls/pull-1/events"
MISSING = problem(404, "not_found", "alpine:3 is not READY on cluster;\npull it first")
IMAGE = image_view()


def _submit(url: str, *options: str) -> tuple[int, dict[str, str], str]:
    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", "hook", "submit",
         "--url", url, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    lines = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return done.returncode, lines, done.stderr


def _is_pinned(found: Mapping[str, str]) -> bool:
    return found["DRAY_IMAGES"] == f"{IMAGE.id},{IMAGE.content_digest},{IMAGE.size}"


def test_what_is_ready_is_pinned(served: Served) -> None:
    url, script = served
    script.on(LOOKUP, says(IMAGE))
    code, found, said = _submit(
        url, "--image", "alpine:3", "--volume", "/a/$SLURM_JOB_ID:/b", "--module", "mpich,gpu"
    )
    assert (code, said) == (0, "")
    assert found.pop("DRAY_IMAGES") == f"{IMAGE.id},{IMAGE.content_digest},{IMAGE.size}"
    assert found == {
        "DRAY_IMAGE": "alpine:3",
        "DRAY_SYSTEM": IMAGE.system,
        "DRAY_IMAGE_ID": IMAGE.id,
        "DRAY_VOLUMES": "/a/$SLURM_JOB_ID:/b",
        "DRAY_VOLUME_PATHS": "/a/${SLURM_JOB_ID}:/b:rw",
        "DRAY_MODULES": "mpich,gpu",
    }


def test_several_images_and_ids_are_looked_up_each(served: Served) -> None:
    url, script = served
    other = "f" * 64
    script.on(LOOKUP, says(IMAGE))
    script.on(f"GET /api/v1/images/_/id/{other}", says(image_view(id=other)))
    code, found, _ = _submit(url, "--image", f"id:{other};alpine:3")
    assert code == 0
    assert found["DRAY_IMAGE_ID"] == other
    assert [entry.split(",")[0] for entry in found["DRAY_IMAGES"].split(";")] == [other, IMAGE.id]


def test_what_is_missing_is_refused_in_one_line_where_the_site_says_so(served: Served) -> None:
    url, script = served
    script.on(LOOKUP, MISSING)
    code, found, said = _submit(url, "--image", "alpine:3", "--if-missing", "fail")
    assert (code, found) == (1, {})
    assert said == "dray: alpine:3 is not READY on cluster; pull it first [not_found]\n"
    assert all(request != PULL for request, _ in script.asked)


def test_an_id_that_is_missing_cannot_be_pulled(served: Served) -> None:
    url, script = served
    where = f"GET /api/v1/images/_/id/{'e' * 64}"
    script.on(where, problem(404, "not_found", "there is no such image"))
    code, _, said = _submit(url, "--image", f"id:{'e' * 64}")
    assert (code, said) == (1, "dray: there is no such image [not_found]\n")


def test_it_waits_and_tells_how_far_it_is(served: Served) -> None:
    url, script = served
    script.on(LOOKUP, MISSING)
    script.on(PULL, says(pull_view(State.INIT), 202))
    script.on(FOLLOW, streams(pulling(1_000_000, 4_000_000), pull_view(State.READY)))
    code, found, said = _submit(url, "--image", "alpine:3", "--if-missing", "wait")
    assert code == 0
    assert _is_pinned(found)
    assert "INIT" in said
    assert "PULLING 1.0 MB of 4.0 MB" in said


def test_it_may_leave_the_pull_to_the_job(served: Served) -> None:
    url, script = served
    script.on(LOOKUP, MISSING)
    script.on(PULL, says(pull_view(State.INIT), 202))
    script.on(LOOK, says(pulling(1, 4_000_000)))
    code, found, said = _submit(url, "--image", "alpine:3", "--if-missing", "pull")
    assert code == 0
    assert found == {
        "DRAY_IMAGE": "alpine:3",
        "DRAY_SYSTEM": IMAGE.system,
        "DRAY_PULLS": "pull-1",
    }
    assert said == "dray: alpine:3 is being pulled; the job waits for it\n"


@pytest.mark.parametrize("if_missing", ["pull", "wait"])
def test_why_it_cannot_be_pulled_is_told_at_once(served: Served, if_missing: str) -> None:
    url, script = served
    script.on(LOOKUP, MISSING)
    script.on(PULL, says(pull_view(State.INIT), 202))
    last = failed("the registry has no such image")
    script.on(LOOK, says(pull_view(State.INIT)), says(last))
    script.on(FOLLOW, streams(last))
    code, found, said = _submit(url, "--image", "alpine:3", "--if-missing", if_missing)
    assert (code, found) == (1, {})
    assert "cannot be had: the registry has no such image" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--image", " , ;"), "names no image"),
        (("--image", "Not/Good"), "is not an image reference"),
        (("--image", ",".join(f"a{n}" for n in range(33))), "33 images"),
        (("--volume", "/a:/etc"), "/etc"),
        (("--volume", "/a:b"), "does not begin with '/'"),
        (("--volume", "/a/$NOT_SET_HERE:/b"), "is not set here"),
        (("--module", "../x"), "no module's name"),
        (("--image", "alpine:3", "--if-missing", "perhaps"), "pull, wait or fail"),
    ],
)
def test_what_makes_no_sense_is_told_before_a_gateway_is_asked(
    served: Served, options: tuple[str, ...], why: str
) -> None:
    url, script = served
    code, found, said = _submit(url, *options)
    assert code in {1, 2}
    assert found == {}
    assert why in said
    assert len(said.splitlines()) == 1
    assert script.asked == []


def test_without_a_gateway_it_says_so_in_one_line() -> None:
    code, _, said = _submit("http://127.0.0.1:1", "--image", "alpine:3")
    assert code == 3
    assert len(said.splitlines()) == 1
    assert "no gateway answers" in said
