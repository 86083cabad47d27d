"""The command line of `shifter`, as the original takes it and its help describes it.

Read by hand: Python's getopt knows no options whose value may be missing, as in `--entrypoint`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from cli.errors import UsageError

USAGE: Final = """Usage:
 shifter [options] [--] [command [arguments]]

Options:
 --image/-i <type:name>   The image: docker:ubuntu:24.04, id:<id>, custom:<name>, local:<directory>
 --volume/-V <from:to[:ro];...>
                          Directories and files of this machine, and where the image has them
 --module/-m <name,...>   What the site offers besides, such as mpich or gpu; none for none
 --env/-e <name=value>    Set a variable; the option may be given again
 --env-file <file>        Set the variables of its lines name=value
 --clearenv/-E            Leave this environment behind
 --entrypoint[=<program>] Run the image's entrypoint, or this program, with the command behind it
 --workdir/-w[=<dir>]     Work in this directory, or in the image's own
 --verbose/-v             Say which image it is, on stderr
 --help/-h                Display this help

Without --image it is what SHIFTER_IMAGETYPE and SHIFTER_IMAGE, SHIFTER_IMAGEREQUEST or SHIFTER
say, else the image that the job was submitted with. SHIFTER_VOLUME and SHIFTER_MODULE stand for
--volume and --module. Without a command it is $SHELL, or /bin/sh where the image has no such shell.

Each has a word over those before: this environment, the image, --env-file, --env, the modules,
the site.

Exit codes: those of the command; 127 when it cannot be executed; 1 when it was not started, with
the reason on stderr.
"""


class _Takes(Enum):
    """What follows an option."""

    NOTHING = auto()
    VALUE = auto()
    PERHAPS = auto()
    """Right behind it, or not at all."""


_LONG: Final = {
    "help": _Takes.NOTHING,
    "volume": _Takes.VALUE,
    "verbose": _Takes.NOTHING,
    "image": _Takes.VALUE,
    "entry": _Takes.PERHAPS,
    "entrypoint": _Takes.PERHAPS,
    "workdir": _Takes.PERHAPS,
    "module": _Takes.VALUE,
    "env": _Takes.VALUE,
    "env-file": _Takes.VALUE,
    "clearenv": _Takes.NOTHING,
}
_SHORT: Final = {
    "h": "help",
    "v": "verbose",
    "V": "volume",
    "i": "image",
    "e": "env",
    "E": "clearenv",
    "w": "workdir",
    "m": "module",
}
_SAME: Final = {"entry": "entrypoint"}


@dataclass(frozen=True, slots=True)
class Options:
    """What was written. Of `entrypoint` and `workdir`: None is not given, "" is the image's."""

    image: str | None = None
    volumes: tuple[str, ...] = ()
    module: str | None = None
    env: tuple[str, ...] = ()
    env_file: str | None = None
    clear_env: bool = False
    entrypoint: str | None = None
    workdir: str | None = None
    verbose: bool = False
    command: tuple[str, ...] = ()


def parse_options(arguments: Sequence[str]) -> Options | None:
    """None: help was asked for."""
    rest = list(arguments)
    given: dict[str, list[str]] = {}
    for name, value in _read(rest):
        given.setdefault(_SAME.get(name, name), []).append(value)
    if "help" in given:
        return None
    for entry in given.get("env", ()):
        if entry.find("=") < 1:
            raise UsageError(f"--env {entry}: write NAME=VALUE")

    def last(name: str) -> str | None:
        return given[name][-1] if name in given else None

    return Options(
        image=last("image"),
        volumes=tuple(given.get("volume", ())),
        module=last("module"),
        env=tuple(given.get("env", ())),
        env_file=last("env-file"),
        clear_env="clearenv" in given,
        entrypoint=last("entrypoint"),
        workdir=last("workdir"),
        verbose="verbose" in given,
        command=tuple(rest),
    )


def _read(rest: list[str]) -> Iterator[tuple[str, str]]:
    """Take the options off; the first word that is none begins the command."""
    while rest and len(rest[0]) > 1 and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            return
        if word.startswith("--"):
            yield _long(word[2:], rest)
        else:
            yield from _short(word[1:], rest)


def _long(word: str, rest: list[str]) -> tuple[str, str]:
    written, equals, value = word.partition("=")
    name = _full_name(written)
    takes = _LONG[name]
    if equals and takes is _Takes.NOTHING:
        raise UsageError(f"--{name} takes no value")
    if takes is _Takes.VALUE and not equals:
        value = _next(f"--{name}", rest)
    return name, value


def _short(letters: str, rest: list[str]) -> Iterator[tuple[str, str]]:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter not in _SHORT:
            raise UsageError(f"there is no option -{letter}")
        name = _SHORT[letter]
        takes = _LONG[name]
        if takes is _Takes.NOTHING:
            yield name, ""
            continue
        if takes is _Takes.VALUE and not letters:
            letters = _next(f"-{letter}", rest)
        yield name, letters
        return


def _next(option: str, rest: list[str]) -> str:
    if not rest:
        raise UsageError(f"{option} needs a value")
    return rest.pop(0)


def _full_name(written: str) -> str:
    """Long options may be shortened, as everywhere."""
    if written in _LONG:
        return written
    found = {_SAME.get(name, name) for name in _LONG if name.startswith(written)}
    if len(found) == 1:
        return found.pop()
    if found:
        raise UsageError(f"--{written} may be {' or '.join(f'--{each}' for each in sorted(found))}")
    raise UsageError(f"there is no option --{written}")
