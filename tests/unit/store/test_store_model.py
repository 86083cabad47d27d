"""The store's life against a model: whatever is done in whatever order, what is held stays."""

import asyncio
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shared.deadline import Deadline
from shared.image.errors import PackMissingError
from shared.store.collect import CollectRules, collect
from shared.store.locks import try_lock
from shared.store.scrub import scrub
from shared.store.store import PackStore
from tests.support.store import DAY, grow_older, key_of, recipe_of, write_pack

LAYERS = [key_of(f"layer {number}") for number in range(5)]
NAMES = [f"image {number}" for number in range(3)]
# No two steps meet exactly at a limit, which the few moments that a test takes would blur.
GRACE, KEEP = 1.5 * DAY, 6.5 * DAY

layers = st.sampled_from(LAYERS)
names = st.sampled_from(NAMES)
stacks = st.sets(layers, min_size=1, max_size=3).map(sorted)


@dataclass(slots=True)
class Image:
    packs: tuple[str, ...]
    age: float = 0.0


class StoreLife(RuleBasedStateMachine):
    """Ages stand for times of use: passing time makes everything older."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="store-model-"))
        self.store = PackStore(self.root)
        self.ages: dict[str, float] = {}
        self.broken: set[str] = set()
        self.images: dict[str, Image] = {}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    @rule(key=layers)
    def build(self, key: str) -> None:
        async def want() -> bool:
            async with self.store.building(key, Deadline.after(10)) as path:
                if path is not None:
                    write_pack(path, key)
                return path is not None

        made = asyncio.run(want())
        assert made == (key not in self.ages or key in self.broken)
        self.broken.discard(key)
        self.ages[key] = 0.0

    @rule(key=layers)
    def build_and_die(self, key: str) -> None:
        """What SIGKILL leaves: a lock file and a partial that nobody holds."""
        path = self.store.pack_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.0123456789ab.partial").write_bytes(b"half")
        lock = try_lock(self.store.lock_path(key), create=True)
        assert lock is not None
        lock.close()

    @rule(name=names, packs=stacks)
    def pull(self, name: str, packs: list[str]) -> None:
        for key in packs:
            self.build(key)
        self.remember(name, packs)

    @rule(name=names, packs=stacks)
    def remember(self, name: str, packs: list[str]) -> None:
        tables = f"{name} of {packs}".encode()
        self.store.put_tables(tables)
        try:
            self.store.remember(recipe_of(name, packs, tables))
        except PackMissingError:
            assert not self.ages.keys() >= set(packs)
            for key in packs:  # those before the missing one count as used
                if key not in self.ages:
                    break
                self.ages[key] = 0.0
            return
        assert self.ages.keys() >= set(packs)
        self.images[name] = Image(tuple(packs))
        self.ages |= dict.fromkeys(packs, 0.0)

    @rule(days=st.integers(1, 4))
    def wait(self, days: int) -> None:
        grow_older(self.root, days * DAY)
        for key in self.ages:
            self.ages[key] += days * DAY
        for image in self.images.values():
            image.age += days * DAY

    @rule(key=layers)
    def cut_short(self, key: str) -> None:
        """Damage that is seen at once; it does not count as use."""
        if key in self.ages:
            path = self.store.pack_path(key)
            content, state = path.read_bytes(), path.stat()
            path.write_bytes(content[:-1] if content else b"")
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
            self.broken.add(key)

    @rule()
    def scrub(self) -> None:
        sum(scrub(self.store, 0.0))
        for key in self.broken:
            del self.ages[key]
        self.broken.clear()

    @rule(limit=st.none() | st.sampled_from((0, 700, 1500)))
    def collect(self, limit: int | None) -> None:
        done = collect(self.store, CollectRules(GRACE, KEEP, limit), threading.Event())
        assert done is not None
        self.images = {name: i for name, i in self.images.items() if i.age <= KEEP}
        if limit is not None:
            self._forgotten_for_space()
        held = {key for image in self.images.values() for key in image.packs}
        for key, age in tuple(self.ages.items()):
            if key not in held and age > GRACE:
                del self.ages[key]
                self.broken.discard(key)
        assert done.files["packs"] == len(self.ages)
        assert done.files["recipes"] == len(self.images)
        old = any(image.age > GRACE for image in self.images.values())
        assert limit is None or done.size <= limit or not old
        assert not list(self.root.rglob("*.partial"))
        assert not list((self.root / "locks").iterdir())

    def _forgotten_for_space(self) -> None:
        """How many is the store's business; which ones is not: the oldest first, none in use."""
        stay = {n for n, i in self.images.items() if self._recipe(n).exists()}
        gone = [i.age for n, i in self.images.items() if n not in stay]
        assert all(age > GRACE for age in gone)
        ages = [self.images[name].age for name in stay]
        assert not gone or not ages or max(ages) <= min(gone)
        self.images = {name: self.images[name] for name in stay}

    def _recipe(self, name: str) -> Path:
        return self.store.recipe_path(key_of(name))

    @invariant()
    def the_store_is_what_the_model_says(self) -> None:
        packs = {path.name[:64] for path in (self.root / "packs").rglob("*.pack")}
        assert packs == set(self.ages)
        recipes = {path.name[:64] for path in (self.root / "recipes").rglob("*.json")}
        assert recipes == {key_of(name) for name in self.images}


TestStoreLife = StoreLife.TestCase
TestStoreLife.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    # Every step is real files: making a failure shorter would take minutes.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
