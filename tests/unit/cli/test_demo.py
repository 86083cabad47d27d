"""`make demo REF=…` before it starts anything."""

import subprocess
import sys

from tests.support.users import REPOSITORY


def test_a_misspelt_reference_is_told_as_such() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--ref", "Foo:3"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("REF: 'Foo:3' is not an image reference: the name 'Foo' must be")
