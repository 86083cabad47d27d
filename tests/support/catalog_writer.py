"""A process that changes node records as fast as it can and says what was acknowledged.

python -m tests.support.catalog_writer URL KEY... : one line `key version` for each change.
"""

import asyncio
import sys

from shared.deadline import Deadline
from tests.support.catalogs import count_up, opened, released


async def write(url: str, keys: list[str]) -> None:
    async with opened(url) as catalog:

        async def count(key: str) -> None:
            while True:
                step = count_up(key, released())
                record = await catalog.nodes.change(key, step, Deadline.after(20))
                assert record is not None
                print(key, record.version, flush=True)

        await asyncio.gather(*map(count, keys))


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2:]))
