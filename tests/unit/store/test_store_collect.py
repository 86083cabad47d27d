"""What the collector removes, and what it must leave alone."""

import threading
from pathlib import Path

import pytest

from shared.deadline import Deadline
from shared.files import publishing
from shared.image.errors import PackMissingError, WorkCancelledError
from shared.store import collect as store_collect
from shared.store import damage as store_damage
from shared.store.collect import Collected, CollectRules, collect
from shared.store.locks import mark_used, release, remove_unless_used, try_lock
from shared.store.store import PackStore
from tests.support.store import DAY, grow_older, key_of, put_pack, recipe_of, remember

RULES = CollectRules(grace=DAY, keep_unused=30 * DAY)


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "store")


def run(store: PackStore, rules: CollectRules = RULES) -> Collected:
    done = collect(store, rules, threading.Event())
    assert done is not None
    return done


def there(store: PackStore, *names: str) -> list[bool]:
    return [store.pack_path(key_of(name)).is_file() for name in names]


def test_what_no_recipe_holds_goes_after_the_grace_period(store: PackStore) -> None:
    held, loose, fresh = (put_pack(store, name) for name in ("held", "loose", "fresh"))
    recipe = remember(store, "image", [held])
    unheld = store.put_tables(b"of no image")
    grow_older(store.root, 2 * DAY)
    assert mark_used(store.pack_path(fresh))
    done = run(store)
    assert there(store, "held", "loose", "fresh") == [True, False, True]
    assert not store.tables_path(unheld).exists()
    assert store.tables_path(recipe.tables.sha256).exists()
    assert done.removed == {"packs": 1, "tables": 1}
    assert done.files == {"packs": 2, "tables": 1, "recipes": 1}
    assert loose != held


def test_a_store_without_anything_can_be_cleaned(store: PackStore) -> None:
    done = run(store)
    assert (done.size, done.removed_size, done.removed.total()) == (0, 0, 0)
    assert not list((store.root / "locks").iterdir())


async def test_finding_a_pack_keeps_it_until_its_recipe_can_be_remembered(store: PackStore) -> None:
    key = put_pack(store, "base")
    grow_older(store.root, 5 * DAY)
    async with store.building(key, Deadline.after(5)) as path:
        assert path is None
    run(store)
    assert there(store, "base") == [True]


def test_a_recipe_that_nobody_used_for_long_is_forgotten(store: PackStore) -> None:
    shared, own = put_pack(store, "shared"), put_pack(store, "own")
    old = remember(store, "old", [shared, own])
    grow_older(store.root, 20 * DAY)
    new = remember(store, "new", [shared])
    grow_older(store.root, 20 * DAY)
    done = run(store)
    assert not store.recipe_path(old.image_id).exists()
    assert store.recipe_path(new.image_id).exists()
    assert there(store, "shared", "own") == [True, False]
    assert done.removed == {"recipes": 1, "packs": 1, "tables": 1}


def test_remembering_again_counts_as_use(store: PackStore) -> None:
    key = put_pack(store, "base")
    recipe = remember(store, "image", [key])
    before = store.recipe_path(recipe.image_id).stat().st_ino
    grow_older(store.root, 40 * DAY)
    remember(store, "image", [key])
    run(store)
    assert store.recipe_path(recipe.image_id).stat().st_ino == before, "nothing had to be written"
    assert there(store, "base") == [True]


def test_a_recipe_that_was_made_otherwise_is_replaced(store: PackStore) -> None:
    remember(store, "image", [put_pack(store, "first")])
    remember(store, "image", [put_pack(store, "second")])
    grow_older(store.root, 2 * DAY)
    run(store)
    assert there(store, "first", "second") == [False, True]


def test_what_is_not_there_cannot_be_remembered(store: PackStore) -> None:
    sha256 = store.put_tables(b"tables")
    recipe = recipe_of("image", [key_of("gone")], b"tables")
    assert recipe.tables.sha256 == sha256
    with pytest.raises(PackMissingError) as caught:
        store.remember(recipe)
    assert caught.value.retryable
    assert not store.recipe_path(recipe.image_id).exists()


def test_too_much_is_reduced_by_what_was_used_longest_ago(store: PackStore) -> None:
    base = put_pack(store, "base", b"b" * 1000)
    for number in range(4):
        remember(store, f"image{number}", [base, put_pack(store, f"own{number}", b"o" * 1000)])
        grow_older(store.root, 2 * DAY)
    size = run(store).size
    done = run(store, CollectRules(DAY, 30 * DAY, max_bytes=size - 1500))
    assert done.size <= size - 1500
    assert there(store, "base", "own0", "own1", "own2", "own3") == [True, False, False, True, True]
    assert done.removed["recipes"] == 2


def test_no_limit_takes_what_was_just_used(store: PackStore) -> None:
    remember(store, "image", [put_pack(store, "base")])
    done = run(store, CollectRules(DAY, 30 * DAY, max_bytes=1))
    assert there(store, "base") == [True]
    assert done.removed.total() == 0
    assert done.size > 1


def test_what_was_used_after_it_was_listed_stays(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planner finds the pack, or remembers the recipe, between listing and removing."""
    lone, held = put_pack(store, "lone"), put_pack(store, "held")
    recipe = remember(store, "image", [held])
    grow_older(store.root, 40 * DAY)

    def late(path: Path, last_used_ns: int) -> bool:
        if path.name == f"{lone}.pack":
            assert mark_used(path)
        if path.suffix == ".json":
            remember(store, "image", [held])
        return remove_unless_used(path, last_used_ns)

    monkeypatch.setattr(store_collect, "remove_unless_used", late)
    done = run(store)
    assert there(store, "lone", "held") == [True, True]
    assert store.recipe_path(recipe.image_id).exists()
    assert done.removed.total() == 0


def test_while_one_collects_no_other_does(store: PackStore) -> None:
    put_pack(store, "loose")
    grow_older(store.root, 2 * DAY)
    lock = try_lock(store.lock_path(store_collect.LOCK), create=True)
    assert lock is not None
    assert collect(store, RULES, threading.Event()) is None
    release(lock, store.lock_path(store_collect.LOCK))
    assert run(store).removed["packs"] == 1


def test_collecting_can_be_given_up(store: PackStore) -> None:
    put_pack(store, "loose")
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(WorkCancelledError):
        collect(store, RULES, cancelled)
    assert run(store).files["packs"] == 1, "the lock was given back"


def test_a_damaged_recipe_holds_nothing_and_stops_nobody(store: PackStore) -> None:
    good, bad = put_pack(store, "good"), put_pack(store, "bad")
    remember(store, "good", [good])
    broken = remember(store, "bad", [bad])
    store.recipe_path(broken.image_id).write_text('{"packs": ["../../x"]}')
    grow_older(store.root, 2 * DAY)
    run(store)
    assert there(store, "good", "bad") == [True, False]
    assert [path.name.split(".")[0] for path in (store.root / "damaged").iterdir()] == [
        broken.image_id
    ]


def test_strange_files_are_left_alone(store: PackStore) -> None:
    key = put_pack(store, "loose")
    strange = [
        store.root / "packs" / "note.txt",
        store.pack_path(key).with_name("README"),
        store.root / "packs" / "zz" / f"{key}.pack",
    ]
    for path in strange:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    grow_older(store.root, 2 * DAY)
    assert run(store).removed["packs"] == 1
    assert all(path.exists() for path in strange)


def test_what_the_dead_left_is_removed_and_the_living_keep_theirs(store: PackStore) -> None:
    with publishing(store.pack_path(key_of("living"))) as file:
        dead = Path(file.name).with_name(".dead.0123.partial")
        dead.write_bytes(b"half")
        run(store)
        assert not dead.exists()
    assert there(store, "living") == [True]


def test_few_damaged_files_are_kept(store: PackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_damage, "MAX_DAMAGED_FILES", 3)
    for number in range(5):
        key = put_pack(store, str(number))
        path = store.pack_path(key)
        assert store_damage.set_aside(store.root, path, path.stat(), "for a test")
        grow_older(store.root / "damaged", DAY)
    kept = {path.name.split(".")[0] for path in (store.root / "damaged").iterdir()}
    assert kept == {key_of(str(number)) for number in (2, 3, 4)}
    monkeypatch.setattr(store_damage, "MAX_DAMAGED_BYTES", 1)
    run(store)
    assert not list((store.root / "damaged").iterdir())


def test_another_file_under_the_name_is_not_set_aside(store: PackStore) -> None:
    path = store.pack_path(put_pack(store, "base"))
    seen = path.stat()
    path.rename(path.with_suffix(".old"))
    put_pack(store, "base")
    assert not store_damage.set_aside(store.root, path, seen, "as it was")
    assert path.exists()
