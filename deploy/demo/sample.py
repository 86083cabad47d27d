"""A registry of one directory, with a sample image in it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from deploy.demo.sample_image import REFERENCE, write_sample_image
from deploy.demo.site import free_port, registry

PORT: Final = 7650
INDEX: Final = "index.json"


@contextlib.asynccontextmanager
async def sample(layout: Path) -> AsyncIterator[str]:
    """How to call the image; it is the same under the same name in every run."""
    if (layout / INDEX).exists():  # written last
        print("The sample image of an earlier run is still here.")
    else:
        print("Making a sample image of this machine's own files (nothing is downloaded) ...")
        await asyncio.to_thread(write_sample_image, layout)
    port = free_port(PORT)
    async with registry(layout, port):
        print(f"A small registry serves it on port {port}.")
        yield f"127.0.0.1:{port}/{REFERENCE}"
