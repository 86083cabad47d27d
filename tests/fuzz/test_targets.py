"""Each target with its seeds, with all that was ever found, and with some changes to the seeds.

The same inputs in each run; `make fuzz` looks for new ones.
"""

import resource
import time
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

FOUND: Final = Path(__file__).parent / "found"
# Of the processor's time, for some kilobytes: far more than any of them needs.
SECONDS: Final = 10.0
KIBIBYTES: Final = 256 << 10
CASES: Final = sorted(path.relative_to(FOUND).as_posix() for path in FOUND.glob("*/*"))


def run(target: Target, data: bytes) -> None:
    """With a bound on time and memory."""
    began = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    target.run(data)
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KIBIBYTES


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_neighbours_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        assert len(seed) <= target.largest
        run(target, seed)

    @settings(
        max_examples=target.examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(seeds), st.randoms(use_true_random=False))
    def neighbours(seed: bytes, random: Random) -> None:
        run(target, target.changed(seed, random))

    neighbours()


@pytest.mark.parametrize("case", CASES)
def test_what_was_found_once_stays_repaired(case: str) -> None:
    run(TARGETS[case.partition("/")[0]], (FOUND / case).read_bytes())
