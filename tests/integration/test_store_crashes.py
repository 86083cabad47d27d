"""SIGKILL of builders, collectors and scrubbers at any moment: the next start cleans up."""

import asyncio
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shared.store.collect import CollectRules, collect
from shared.store.damage import finish, pack_fault
from shared.store.scrub import scrub
from shared.store.store import Held, PackStore
from tests.support.conditions import eventually
from tests.support.store import DAY, grow_older, key_of
from tests.support.store_worker import layers_of, tables_of

ROOT = Path(__file__).parents[2]
ROUNDS = 4
WORKS = (["build", "1"], ["build", "2"], ["collect"], ["collect"], ["scrub"])


class Workers:
    """Processes on one store, and what they have been promised."""

    def __init__(self, store: PackStore, log: Path) -> None:
        self._store = store
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for work, *arguments in WORKS:
            command = [sys.executable, "-m", "tests.support.store_worker", work]
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    [*command, str(self._store.root), *arguments], cwd=ROOT, stdout=log, stderr=log
                )
            self._processes.append(process)

    def kill(self) -> None:
        assert [process.poll() for process in self._processes] == [None] * len(WORKS), self.said()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def promised(self) -> set[int]:
        return set(self._numbers())

    def promises(self) -> int:
        """How often one was made; some are made again."""
        return len(self._numbers())

    def _numbers(self) -> list[int]:
        # The last line may be half.
        lines = self.said().rpartition("\n")[0].split("\n")
        assert not any(line.startswith("Traceback") for line in lines), self.said()
        return [int(line) for line in lines if line.isdigit()]


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "store")


async def test_what_was_promised_is_there_and_nothing_else_is_left(
    store: PackStore, tmp_path: Path
) -> None:
    workers = Workers(store, tmp_path / "log")
    choice = random.Random(7)
    for _ in range(ROUNDS):
        workers.start()
        try:
            wanted = workers.promises() + choice.randrange(3, 100)
            await eventually(lambda wanted=wanted: workers.promises() > wanted, within=30)  # type: ignore[misc]
        finally:
            workers.kill()
        await asyncio.to_thread(check, store, workers.promised())
    workers.start()
    try:
        await eventually(lambda: "removed packs" in workers.said(), within=30)
    finally:
        workers.kill()
    await asyncio.to_thread(check, store, workers.promised())
    # And everything that nobody holds any more can go.
    grow_older(store.root, 40 * DAY)
    done = collect(store, CollectRules(), threading.Event())
    assert done is not None
    assert done.files.total() == 0
    left = [path for path in store.root.rglob("*") if path.is_file() and path.name != "scrub.json"]
    assert left == []


def check(store: PackStore, promised: set[int]) -> None:
    assert collect(store, CollectRules(), threading.Event()) is not None, "a dead one's lock"
    assert not list(store.root.rglob("*.partial"))
    for number in promised:
        path = store.recipe_path(key_of(str(number)))
        held = Held.model_validate_json(path.read_bytes())
        assert set(held.packs) == set(layers_of(number))
        with store.open_tables(held.tables) as file:
            assert file.read() == tables_of(number)
        for key in held.packs:
            with store.open_pack(key) as file:
                fault = pack_fault(file, store.pack_path(key), key)
                assert finish(fault, threading.Event()) is None
    sum(scrub(store, 0.0))
    assert not list((store.root / "locks").iterdir())
    assert not (store.root / "damaged").exists(), "nothing was ever half there"
