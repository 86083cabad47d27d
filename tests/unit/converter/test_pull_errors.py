"""What a user is told when several things went wrong at once."""

import errno

import pytest

from services.converter.pulls import _explained
from services.converter.registry.errors import ImageNotFoundError
from shared.events import PullRequested
from shared.image.recipe import PackOptions

EVENT = PullRequested(
    correlation_id="the-pull",
    key="k",
    attempt=1,
    reference="docker.io/library/debian:12",
    platform="linux/amd64",
    options=PackOptions(),
    max_dead_share=0.15,
)
NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "/store/packs/ab")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ImageNotFoundError("no such tag"), "image_not_found", "no such tag"),
        (
            ExceptionGroup("", [KeyError("x"), ExceptionGroup("", [ImageNotFoundError("gone")])]),
            "image_not_found",
            "gone",
        ),
        (ExceptionGroup("", [NO_SPACE]), "store_unavailable", "No space left on device"),
        (KeyError("x"), "internal_error", "the-pull"),
    ],
)
def test_the_first_error_that_says_something_is_told(
    error: Exception, code: str, says: str
) -> None:
    told = _explained(error, EVENT)
    assert told.code == code
    assert says in told.message
