"""Modules by name, as users write them: `--module=mpich,gpu`."""

import re
from collections.abc import Iterable
from typing import Final

PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}"
"""Of a name: a file is called so, and it goes into messages."""
NONE: Final = "none"
"""No module's name: it takes away all that is not asked for."""
_BETWEEN: Final = re.compile(r"[,;]")


def read_module_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order in which they are written first."""
    names = (name.strip() for text in texts for name in _BETWEEN.split(text))
    return tuple(dict.fromkeys(name for name in names if name))
