"""What a process that has a user's rights can do for its owner, besides opening files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from services.converter.disks import jobs as disks
from services.converter.trees import jobs as trees

Job = Callable[[bytes, Sequence[int]], bytes]
"""From an order and descriptors to an answer: both short, in JSON. What is long goes by a pipe."""

JOBS: Final[Mapping[str, Job]] = {**trees.JOBS, **disks.JOBS}
