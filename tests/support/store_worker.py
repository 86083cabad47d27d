"""A process that lives on a pack store until it is killed: `python -m tests.support.store_worker`.

`build` makes packs and remembers recipes, and prints an image's number as soon as the store has
promised to keep it; `collect` cleans, `scrub` reads, without pause.
"""

import asyncio
import random
import sys
import threading
from pathlib import Path

from shared.deadline import Deadline
from shared.image.errors import PackMissingError
from shared.store.collect import CollectRules, collect
from shared.store.scrub import scrub
from shared.store.store import PackStore
from tests.support.store import key_of, recipe_of, write_pack

LAYERS = 400
DATA = b"data" * 5_000
# So short that packs go between being found and being remembered, too.
GRACE = 0.1


def layers_of(number: int) -> list[str]:
    choice = random.Random(number)
    return [key_of(f"layer {choice.randrange(LAYERS)}") for _ in range(3)]


def tables_of(number: int) -> bytes:
    return f"tables of {number}".encode() * 1000


async def build(store: PackStore, seed: int) -> None:
    choice = random.Random(seed)
    while True:
        number = choice.randrange(1000)
        keys = layers_of(number)
        for key in keys:
            async with store.building(key, Deadline.after(30)) as path:
                if path is not None:
                    write_pack(path, key, DATA)
        if choice.random() < 0.5:
            continue  # as a pull that failed: nobody holds these
        store.put_tables(tables_of(number))
        try:
            store.remember(recipe_of(str(number), keys, tables_of(number)))
        except PackMissingError:
            continue  # this took longer than the grace period: as in a converter, again
        print(number, flush=True)


def main() -> None:
    store, work = PackStore(Path(sys.argv[2])), sys.argv[1]
    if work == "build":
        asyncio.run(build(store, int(sys.argv[3])))
    while work == "collect":
        done = collect(store, CollectRules(grace=GRACE), threading.Event())
        if done is not None and done.removed["packs"]:
            print("removed packs", flush=True)
    while work == "scrub":
        sum(scrub(store, 0.0))


if __name__ == "__main__":
    main()
