"""The light readers of the command line agree with the models of the gateway."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from cli.answers import read_image, read_pull
from cli.errors import UnexpectedAnswerError
from shared.states import State
from tests.support.views import NOW, again, failed, image_view, pull_view, pulling


def _raw(model: BaseModel) -> Any:
    return json.loads(model.model_dump_json())


def test_a_ready_pull_is_read_with_its_image() -> None:
    view = pull_view(State.READY)
    pull = read_pull(_raw(view))
    assert view.image is not None
    assert pull.ended
    assert pull.raw["id"] == pull.id == view.id
    assert pull.image == read_image(_raw(view.image))
    assert pull.image.size == view.image.size
    assert pull.image.cmd == ("/bin/sh",)
    assert pull.image.ready_at == NOW


def test_a_running_pull_is_read_with_its_progress_per_layer() -> None:
    pull = read_pull(_raw(pulling(300, 1000)))
    assert not pull.ended
    assert pull.progress is not None
    assert pull.progress.stage is State.PULLING
    assert [(layer.done, layer.cached) for layer in pull.progress.layers] == [
        (300, False),
        (0, True),
    ]


def test_a_failed_pull_is_read_with_its_reason() -> None:
    pull = read_pull(_raw(failed("the registry refuses")))
    assert pull.ended
    assert pull.failure == pull.trouble == "the registry refuses"


def test_a_failed_try_is_told_apart_from_a_failed_pull() -> None:
    waiting = again("no route", tries=3)
    assert read_pull(_raw(waiting)).trouble == "try 3 in a moment: no route"
    going = waiting.model_copy(update={"state": State.PULLING})
    assert read_pull(_raw(going)).trouble == "this is try 3, after: no route"


@pytest.mark.parametrize(
    "change",
    [{"state": "DREAMING"}, {"requested_at": "yesterday"}, {"image": 5}, {"progress": {"x": 1}}],
)
def test_another_version_s_words_are_named_instead_of_crashing(change: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedAnswerError, match="another version"):
        read_pull(_raw(pull_view(State.READY)) | change)


def test_an_image_without_an_id_is_refused() -> None:
    raw = _raw(image_view())
    del raw["id"]
    with pytest.raises(UnexpectedAnswerError, match="'id'"):
        read_image(raw)
