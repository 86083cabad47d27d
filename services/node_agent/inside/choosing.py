"""Which modules a job gets: those it names, those its image names, those that every job has."""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.module import Module
from services.node_agent.inside.site_files import Files
from shared.inside.module_names import NONE

LABEL: Final = "module"
_MOST: Final = 64


class _Said(IntEnum):
    """By whom: where two modules exclude each other, the greater has it."""

    BY_DEFAULT = 0
    BY_IMAGE = 1
    BY_JOB = 2


def choose(
    modules: Files[Module], wanted: Sequence[str], labels: Mapping[str, str]
) -> dict[str, Module]:
    """In the order in which they have their word: the later, the last one. `none` takes away all
    that the job does not ask for itself.
    """
    roots: dict[str, _Said] = {}
    if NONE not in wanted:
        for name, module in modules.found.items():
            if module.default:
                roots[name] = _Said.BY_DEFAULT
        for name in labels.get(LABEL, "").replace(",", " ").split()[:_MOST]:
            known = modules.found.get(name)
            # What the site's file says cannot be known where it is broken.
            if name in modules.broken or (known is not None and known.by_label):
                _say(roots, name, _Said.BY_IMAGE)
    for name in wanted[:_MOST]:
        if name != NONE:
            _say(roots, name, _Said.BY_JOB)
    return _chosen(modules, roots)


def _say(roots: dict[str, _Said], name: str, said: _Said) -> None:
    """The one that is asked for last has the last word."""
    roots.pop(name, None)
    roots[name] = said


def _chosen(modules: Files[Module], roots: Mapping[str, _Said]) -> dict[str, Module]:
    given_up: set[str] = set()
    while True:
        said: dict[str, _Said] = {}
        for name, who in sorted(roots.items(), key=lambda item: item[1]):
            if not _needs(modules, name, given_up):
                _add(modules, name, who, said)
        loser = _loser(modules.found, said)
        if loser is None:
            return {name: modules.found[name] for name in said}
        given_up.add(loser)


def _needs(modules: Files[Module], name: str, given_up: set[str]) -> bool:
    """Whether one of these is among what it needs, or itself."""
    pending, seen = [name], set[str]()
    while pending:
        each = pending.pop()
        if each in given_up:
            return True
        if each not in seen and each in modules.found:
            seen.add(each)
            pending += modules.found[each].requires
    return False


def _add(modules: Files[Module], name: str, who: _Said, said: dict[str, _Said]) -> None:
    """With what it requires, before it."""
    on_the_way: set[str] = set()

    def add(each: str, needed_by: str | None) -> None:
        if each in on_the_way:
            return
        on_the_way.add(each)
        for needed in _module(modules, each, needed_by).requires:
            add(needed, each)
        said[each] = max(who, said.get(each, who))

    add(name, None)


def _module(modules: Files[Module], name: str, needed_by: str | None) -> Module:
    if (module := modules.found.get(name)) is not None:
        return module
    if (reason := modules.broken.get(name)) is not None:
        raise InsideRefusedError(
            f"the module '{name}' of this site cannot be used, the operators have to mend it: "
            f"{reason}"
        )
    asked = f", which the module '{needed_by}' requires" if needed_by else ""
    raise InsideRefusedError(
        f"there is no module '{name}'{asked} on this node: it has "
        f"{_listed(modules.found) or 'none'}"
    )


def _loser(modules: Mapping[str, Module], said: Mapping[str, _Said]) -> str | None:
    """Of two that exclude each other the one that fewer asked for; of equals, the later."""
    names = list(said)
    for index, later in enumerate(names):
        for earlier in names[:index]:
            if not _exclude(modules, earlier, later):
                continue
            if said[earlier] == said[later] == _Said.BY_JOB:
                raise InsideRefusedError(
                    f"the modules {earlier} and {later} cannot be used together: choose one"
                )
            return earlier if said[earlier] < said[later] else later
    return None


def _exclude(modules: Mapping[str, Module], one: str, other: str) -> bool:
    """As their files say; and no two can take the place of the same MPI."""
    first, second = modules[one], modules[other]
    return (
        other in first.conflicts
        or one in second.conflicts
        or (first.mpi is not None and second.mpi is not None)
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
