"""What the commands' tests talk to."""

from collections.abc import Iterator

import pytest

from tests.support.scripted_gateway import Script, scripted_gateway


@pytest.fixture
def served() -> Iterator[tuple[str, Script]]:
    """A gateway's URL, and the script that it answers by."""
    with scripted_gateway() as found:
        yield found
