"""Images for a job that is still pending: asked for as its user, and waited for.

A scheduler calls it as often as it likes: it joins what is under way. While no gateway answers it
waits for one, as the job would have to in any case.
"""

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, TypeVar

from cli.answers import Image, Pull, read_image, read_pull
from cli.errors import CliError, RefusedError, UnreachableError
from cli.follow import follow
from cli.gateway import Gateway, PullWish
from cli.hook_guard import OutOfTimeError, within
from cli.hook_submit import pinned
from cli.job_images import IMAGE_ID, IMAGES, written
from cli.show import duration

AGAIN_SECONDS: Final = 2.0
"""While no gateway answers."""
BY_ID: Final = "id:"

Answered = TypeVar("Answered")


class NotStagedError(CliError):
    """A job cannot have its image."""

    code = "not_staged"


def stage(gateway: Gateway, wishes: Sequence[PullWish], wait: float) -> list[str]:
    """Lines for the job's environment, when all of its images are READY."""
    staging = _Staging(gateway)
    try:
        with within(wait, "staging"):
            for wish in wishes:  # they come side by side
                staging.begin(wish)
            images = [staging.end(wish) for wish in wishes]
    except OutOfTimeError as exc:
        names = ", ".join(wish.reference for wish in wishes)
        why = staging.trouble or "`dray queue` shows how far it is"
        raise NotStagedError(f"{names} not READY within {duration(wait)}: {why}") from exc
    return [f"{IMAGE_ID}={images[0].id}", f"{IMAGES}={written(map(pinned, images))}"]


class _Staging:
    """Asks until somebody answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.trouble = ""
        """Why nobody did, the last time."""

    def begin(self, wish: PullWish) -> None:
        if not wish.reference.startswith(BY_ID):
            self._patiently(lambda: self._requested(wish))

    def end(self, wish: PullWish) -> Image:
        if wish.reference.startswith(BY_ID):
            image_id = wish.reference.removeprefix(BY_ID)
            return self._patiently(lambda: self._by_id(image_id, wish.system))
        pull = self._patiently(lambda: self._ended(wish))
        # What was placed before stays usable where a newer one cannot be had.
        if pull.image is None:
            reason = pull.failure or f"its pull ended as {pull.state}"
            raise NotStagedError(f"{pull.reference} cannot be had: {reason}")
        return pull.image

    def _requested(self, wish: PullWish) -> Pull:
        return read_pull(self._gateway.request_pull(wish).body)

    def _ended(self, wish: PullWish) -> Pull:
        last = self._requested(wish)
        for seen in follow(self._gateway, last, "dray queue", self._away):
            self.trouble, last = "", seen
        return last

    def _by_id(self, image_id: str, system: str | None) -> Image:
        return read_image(self._gateway.image(image_id, system))

    def _away(self, _seconds: float, why: str) -> None:
        self.trouble = why

    def _patiently(self, ask: Callable[[], Answered]) -> Answered:
        while True:
            try:
                return ask()
            except UnreachableError as exc:
                self.trouble = exc.message
            except RefusedError as exc:
                if exc.answered < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                self.trouble = exc.message
            time.sleep(AGAIN_SECONDS)
