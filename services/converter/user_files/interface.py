"""How a source gets at files, whoever's they are. All of it blocks: it is called in threads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class UserFiles(Protocol):
    """Opens to read, and nothing that could block or act when it is opened. For many threads."""

    @property
    def scope(self) -> str:
        """Whose rights these are: what was read with others' is not known to these."""

    def open_file(self, path: str | Path, *, within: int | None = None) -> int:
        """A descriptor of a regular file.

        Within a directory, which is a descriptor too, `path` leads down from it, and over no link.
        """

    def open_directory(self, path: str | Path, *, within: int | None = None) -> int:
        """The same of a directory. What is in it is for this object alone to open."""

    def run(self, job: str, order: bytes, fds: Sequence[int]) -> bytes:
        """What one of `jobs` answers, in a process of its own that has these rights.

        It has copies of the descriptors when it begins. Returns only if the job came to its end.
        """
