"""One target, guided by coverage, until its time is over or it fails: a child of `__main__`.

The arguments are the target's name, and libFuzzer's own.
"""

import sys
from random import Random

import atheris

# What is imported meanwhile tells the fuzzer which of its lines were run.
with atheris.instrument_imports(include=["services", "shared"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(2):
            return target.changed(data, random)[:max_size]
        new: bytes = atheris.Mutate(data, max_size)
        return target.repair(new)[:max_size] if random.randrange(8) else new

    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
