"""Opening what lies in a directory of the test's own, as a conversion does."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest

from services.converter.packing.limits import Limits
from services.converter.registries import Registries
from services.converter.registry.platforms import Platform, parse_platform
from services.converter.sources.interface import SourceImage
from services.converter.sources.open import opened
from services.converter.sources.origin import parse_origin
from shared.deadline import Deadline
from shared.settings.types import this_platform

LIMITS = Limits()
HERE = parse_platform(this_platform())

Found = tuple[SourceImage, list[bytes]]
Look = Callable[..., Awaitable[Found]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """The image that a text means, and its layers' bytes as they lie in the source."""

    async def found(text: str, platform: Platform = HERE, limits: Limits = LIMITS) -> Found:
        deadline = Deadline.after(30)
        origin = await asyncio.to_thread(parse_origin, text)
        unused = cast("Registries", None)
        scratch = tmp_path / "scratch"
        async with opened(origin, unused, scratch, limits, deadline) as source:
            image = await source.resolve(platform, deadline)
            layers = []
            for layer in image.layers:
                async with aclosing(layer.open(deadline)) as chunks:
                    layers.append(b"".join([chunk async for chunk in chunks]))
                assert len(layers[-1]) == layer.size
        # What a compressed archive was expanded to has never had a name.
        assert not scratch.exists() or not any(scratch.iterdir())
        return image, layers

    return found
