"""What a job's inside says of itself, in small files beside its namespaces.

env         what the image does to a rank's environment; see `apply`
changes     and what modules and the site do, after the user's own options
workdir     where the image wants to be worked in
entrypoint  the image's words for what is run
cmd         and those that follow where the user gives none

Words end with a NUL. A program of a few lines reads them, once for each rank: no format of more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.inside.environment import Changes

ENV: Final = "env"
CHANGES: Final = "changes"
WORKDIR: Final = "workdir"
ENTRYPOINT: Final = "entrypoint"
CMD: Final = "cmd"

SET: Final = "="
UNSET: Final = "-"
PREPEND: Final = "<"
APPEND: Final = ">"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Of one image, for one job."""

    env: tuple[str, ...] = ()
    """The image's, NAME=VALUE."""
    changes: tuple[Changes, ...] = ()
    """Of modules, then of the site."""
    workdir: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()

    def files(self) -> dict[str, bytes]:
        """By name, as they are written."""
        return {
            ENV: _words(self._of_image()),
            CHANGES: _words(operations(self.changes)),
            WORKDIR: _words([self.workdir] if self.workdir else []),
            ENTRYPOINT: _words(self.entrypoint),
            CMD: _words(self.cmd),
        }

    def _of_image(self) -> Iterable[str]:
        """Each is one of the marks above, and then NAME=VALUE, or a name to be unset."""
        for entry in self.env:
            if not entry.startswith("=") and "=" in entry:
                yield f"{SET}{entry}"


def operations(changes: Iterable[Changes]) -> Iterable[str]:
    """For `apply`."""
    for change in changes:
        yield from (f"{UNSET}{name}" for name in change.unset)
        for mark, values in (
            (SET, change.set),
            (PREPEND, change.prepend),
            (APPEND, change.append),
        ):
            yield from (f"{mark}{name}={value}" for name, value in values.items())


def apply(wanted: Iterable[str], env: dict[str, str]) -> None:
    """What `files` says of the environment, done to one."""
    for operation in wanted:
        mark, rest = operation[:1], operation[1:]
        name, _, value = rest.partition("=")
        if mark == UNSET:
            env.pop(rest, None)
        elif mark == SET or not env.get(name):
            env[name] = value
        else:
            env[name] = f"{value}:{env[name]}" if mark == PREPEND else f"{env[name]}:{value}"


def read_words(content: bytes) -> list[str]:
    return [word.decode("utf-8", "surrogateescape") for word in content.split(b"\0")[:-1]]


def _words(words: Iterable[str]) -> bytes:
    """What holds a NUL could be passed to no program anyhow."""
    kept = (word for word in words if "\0" not in word)
    return b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in kept)
