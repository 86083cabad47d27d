"""Which devices the scheduler gave to a job, as its variables have it.

Where the scheduler limits devices by cgroup, as Slurm does with ConstrainDevices, the kernel sees
to it that a job has no others. Where not, an image at least shows no others.
"""

import re
from collections.abc import Mapping
from typing import Final

from shared.inside.devices import OF_NODE, OF_VENDOR

_NOTHING: Final = frozenset({"", "-1", "nodevfiles", "none", "void"})
_RANGE: Final = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")
_MOST: Final = 256


def given(vendor: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Their numbers, or names as the vendor's tools have them; none where the job has none."""
    for variable in OF_NODE:
        if env.get(variable):
            return _listed(env[variable])
    return _listed(env.get(OF_VENDOR.get(vendor, ""), ""))


def renumbered(vendor: str, chosen: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    """The vendor's variable as it has to be where only these devices are: they are counted anew.

    One that counts from 0 already, as under a cgroup, stays as it is.
    """
    variable = OF_VENDOR.get(vendor)
    wanted = _listed(env.get(variable, "")) if variable else ()
    if variable is None or not wanted or not all(map(str.isdecimal, (*wanted, *chosen))):
        return {}
    order = sorted({int(name) for name in chosen})
    numbers = [int(name) for name in wanted]
    if max(numbers) < len(order) or not set(numbers) <= set(order):
        return {}
    return {variable: ",".join(str(order.index(number)) for number in numbers)}


def _listed(value: str) -> tuple[str, ...]:
    found: list[str] = []
    for word in value.split(",")[:_MOST]:
        name = word.strip()
        if name.lower() in _NOTHING:  # what follows it counts for nothing, as CUDA has it
            break
        if (span := _RANGE.fullmatch(name)) is not None:
            found += map(str, range(int(span[1]), min(int(span[2]), int(span[1]) + _MOST) + 1))
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))[:_MOST]
