"""The sweep takes up what is due, one record at a time, over a real catalog."""

from datetime import timedelta
from pathlib import Path

import pytest

from shared.catalog.interface import Step
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.errors import ConflictError
from shared.models import utcnow
from shared.states import State
from tests.support.catalogs import opened
from tests.support.job_site import Gateway
from tests.support.lifecycle import image, store, stored


async def test_one_that_cannot_be_dealt_with_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        long_ago = utcnow() - timedelta(days=1000)
        names = ("first", "second", "third")
        for number, name in enumerate(names):
            last = long_ago + timedelta(hours=number)
            await store(catalog, image(name, "abc"[number], last=last))
        stubborn = (await stored(catalog, "first")).key
        change = catalog.images.change

        async def changing(
            key: str, step: Step[ImageRecord], deadline: Deadline
        ) -> ImageRecord | None:
            if key == stubborn:
                raise ConflictError("changed by others again and again")
            return await change(key, step, deadline)

        monkeypatch.setattr(catalog.images, "change", changing)
        gateway = Gateway(catalog, tmp_path)
        assert await gateway.pulls.overdue(3) == 2, "else the sweep would come back at once"
        states = [(await stored(catalog, name)).state for name in names]
        assert states == [State.READY, State.EXPIRING, State.EXPIRING]
        monkeypatch.undo()
        assert await gateway.pulls.overdue(3) == 1
        assert (await stored(catalog, "first")).state is State.EXPIRING
        await gateway.close()
