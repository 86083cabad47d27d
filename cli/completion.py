"""Completion for shells: what may stand where, written into a script that knows it by heart.

Only what the gateway alone knows is asked for while somebody waits (cli.suggestions).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

PROGRAM: Final = "dray"
REFERENCES: Final = frozenset({"REF", "IMAGE"})
OR_FILES: Final = frozenset({"IMAGE", "FILE"})
SYSTEMS: Final = frozenset({"SYSTEM"})
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*|--?[A-Za-z0-9][A-Za-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Option:
    """`values` are those that it takes, where they are known; `takes`: it wants one."""

    names: tuple[str, ...]
    help: str
    takes: bool
    values: tuple[str, ...]
    system: bool
    env: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """One command, or a group of them, and what may follow it.

    `references`: how many of its arguments name images, -1 for all. `commands` are words and what
    they mean: those of a group, or the only ones that an argument may be.
    """

    path: str
    help: str
    options: tuple[Option, ...]
    commands: tuple[tuple[str, str], ...]
    references: int
    files: bool
    """Whether they may be files, too."""


def places(app: typer.Typer) -> list[Place]:
    return list(_below(typer.main.get_command(app), PROGRAM))


def _below(command: Any, path: str) -> Iterator[Place]:
    inner = command.commands if isinstance(command, TyperGroup) else {}
    shown = {name: each for name, each in inner.items() if not each.hidden}
    options = [_option(each) for each in command.params if isinstance(each, TyperOption)]
    options.append(Option(("-h", "--help"), "Show this message and exit", False, (), False))
    words = tuple((name, each.get_short_help_str(80)) for name, each in shown.items())
    yield Place(
        path=path,
        help=command.get_short_help_str(80),
        options=tuple(options),
        commands=words or _choices(command),
        references=_references(command),
        files=any(each.metavar in OR_FILES for each in _arguments(command)),
    )
    for name, each in shown.items():
        yield from _below(each, f"{path} {name}")


def _option(option: TyperOption) -> Option:
    return Option(
        names=(*option.opts, *option.secondary_opts),
        help=(option.help or "").partition(". ")[0].rstrip("."),
        takes=not option.is_flag,
        values=tuple(word for word, _ in _words_of(option)),
        system=option.metavar in SYSTEMS,
        env=str(option.envvar or ""),
    )


def _choices(command: Any) -> tuple[tuple[str, str], ...]:
    """What the first argument may be, where it is one of a few words."""
    arguments = _arguments(command)
    return _words_of(arguments[0]) if arguments else ()


def _arguments(command: Any) -> list[TyperArgument]:
    return [each for each in command.params if isinstance(each, TyperArgument)]


def _words_of(parameter: Any) -> tuple[tuple[str, str], ...]:
    choices = getattr(parameter.type, "choices", ())
    return tuple((str(getattr(choice, "value", choice)), "") for choice in choices)


def _references(command: Any) -> int:
    count = 0
    for argument in _arguments(command):
        if (argument.metavar or "").rstrip(".") not in REFERENCES:
            break
        if argument.nargs == -1:
            return -1
        count += 1
    return count


def tables(found: list[Place]) -> str:
    """Functions that bash and zsh both understand, each printing words for a place."""
    for place in found:
        for word in (*place.path.split(), *(name for each in place.options for name in each.names)):
            assert _WORD.fullmatch(word), word  # nothing here needs quoting
    commands = {place.path: [name for name, _ in place.commands] for place in found}
    options = {
        place.path: [name for option in place.options for name in option.names] for place in found
    }
    valued = {
        f"{place.path} {name}": list(option.values) or ["@systems" if option.system else "@files"]
        for place in found
        for option in place.options
        if option.takes
        for name in option.names
    }
    references = {place.path: [str(place.references)] for place in found if place.references}
    parts = (
        ("commands", commands),
        ("options", options),
        ("values", valued),
        ("references", references),
    )
    return "\n".join(_function(f"_dray_{name}", cases) for name, cases in parts)


def _function(name: str, cases: dict[str, list[str]]) -> str:
    # Places with the same words share a line.
    by_words: dict[str, list[str]] = {}
    for case, words in cases.items():
        if words:
            by_words.setdefault(" ".join(words), []).append(f'"{case}"')
    lines = [
        f"    {'|'.join(patterns)}) printf '%s\\n' {words} ;;"
        for words, patterns in by_words.items()
    ]
    return "\n".join([f"{name}() {{", '    case "$1" in', *lines, "    esac", "}"])
