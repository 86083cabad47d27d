"""`dray store` on a store without any service."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.store import StoreInUseError, opened, scrub
from shared.store import scrub as store_scrub
from shared.store.locks import try_lock
from shared.store.store import PackStore
from tests.support.store import DAY, grow_older, put_pack, remember


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    store = PackStore(tmp_path / "store")
    remember(store, "image", [put_pack(store, "held")])
    put_pack(store, "loose", b"x" * 5000)
    return store


def dray(*arguments: object) -> "subprocess.CompletedProcess[str]":
    dray = str(Path(sys.executable).with_name("dray"))
    command = [dray, "store", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def said(*arguments: object) -> dict[str, Any]:
    done = dray(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_status_then_collect(store: PackStore) -> None:
    loose = said("status", "--store", store.root)
    assert (loose["packs"], loose["recipes"], loose["damaged"]) == (2, 1, 0)
    assert 5000 < loose["unheld_bytes"] < loose["bytes"]
    grow_older(store.root, 2 * DAY)
    done = said("collect", "--store", store.root)
    assert done["removed"] == {"packs": 1, "tables": 0, "recipes": 0}
    assert done["removed_bytes"] == loose["unheld_bytes"]
    assert "1 pack and 1 file of tables" in dray("status", "--store", store.root).stdout


def test_scrub_names_what_is_damaged(store: PackStore) -> None:
    assert dray("scrub", "--store", store.root).returncode == 0
    path = next((store.root / "packs").rglob("*.pack"))
    path.write_bytes(b"")
    done = dray("scrub", "--store", store.root)
    assert done.returncode == 1
    assert path.name in done.stdout


@pytest.mark.parametrize("task", ["collect", "scrub"])
def test_one_at_a_time(store: PackStore, task: str) -> None:
    lock = try_lock(store.lock_path(task), create=True)
    assert lock is not None
    done = dray(task, "--store", store.root)
    lock.close()
    assert (done.returncode, done.stdout) == (1, "")
    assert "try again later" in done.stderr


def test_nothing_is_said_to_be_read_where_somebody_else_ends_meanwhile(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = opened(store.root, None)
    assert scrub(place, json=True) == 0
    monkeypatch.setattr(store_scrub, "try_lock", lambda *_, **__: None)
    with pytest.raises(StoreInUseError):
        scrub(place, json=True)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    done = dray("status", "--store", tmp_path / "none")
    assert done.returncode == 2
    assert "--store" in done.stderr
