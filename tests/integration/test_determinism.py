"""The same layers and options give the same bytes, whatever else is different."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Layers with all that is kept in tables: owners, attributes, links, and data that die.
SCRIPT = """
import hashlib, sys
from pathlib import Path
from shared.image.recipe import PackOptions
from shared.store.store import PackStore
from tests.support.noise import noise
from tests.support.packing import KEEP_ALL, add_pack, build_image
from tests.support.packing import hard_link, member, symlink, tar_of

place, threads, order, limit, compression = sys.argv[1:]
options = KEEP_ALL.model_copy(update={"compression": compression, "block_size": 65536})
def attributes(n):
    return {"SCHILY.xattr.user.a": str(n % 7), "SCHILY.xattr.trusted.b": "x" * (n % 5)}
lower = [
    (member(f"d{n % 13}/f{n}", uid=n % 17, gid=n % 19, pax_headers=attributes(n)),
     noise(n * 997, n) + b"again " * n)
    for n in range(300)
]
middle = [(f"d{n % 13}/.wh.f{n}", b"") for n in range(0, 300, 2)]
middle += [(f"new/{n}", b"text %d " % n * n) for n in range(200)]
upper = [hard_link("linked", "d1/f1"), symlink("s", "new"), ("s/1", b"through a link")]
layers = [tar_of(*lower), tar_of(*middle), tar_of(*upper)]
store = PackStore(Path(place) / "store")
for layer in layers[::int(order)]:
    add_pack(store, layer, options, threads=int(threads))
built = build_image(
    layers, Path(place), options, threads=int(threads), max_dead_share=float(limit)
)
print(built.recipe.image_id, hashlib.sha256(built.path.read_bytes()).hexdigest())
print(len(built.recipe.segments))
"""


def made(place: Path, seed: str, threads: int, order: int, limit: str, compression: str) -> str:
    (place / "store").mkdir(parents=True)
    arguments = [str(place), str(threads), str(order), limit, compression]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("limit", "segments"), [("1", 3), ("0.1", 20)])
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_hash_seed_threads_and_order_of_arrival_change_nothing(
    tmp_path: Path, compression: str, limit: str, segments: int
) -> None:
    results = [
        made(tmp_path / "1", "0", 1, 1, limit, compression),
        made(tmp_path / "2", "1", 4, -1, limit, compression),
        made(tmp_path / "3", "4242", 2, 1, limit, compression),
    ]
    assert all(one == other for one, other in pairwise(results))
    assert int(results[0].split()[-1]) >= segments
