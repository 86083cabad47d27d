"""The environment of a program in an image: who has the last word, and in which order.

Host, image, `--env-file`, `--env`, modules, site. Each may replace what came before; modules and
the site may also put something before or after it, as paths want it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.errors import InvalidInputError

FROM_HOST: Final = ("HOME", "USER", "LOGNAME", "TERM", "LANG", "LC_ALL", "TZ")
"""What a program has to know about who started it; the image and options may say otherwise."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of the host's loader: what they name is not in the image, and must never reach a set-up step.
NEVER: Final = re.compile(
    r"LD_.*|GLIBC_TUNABLES|BASH_ENV|ENV|PYTHON(PATH|HOME|STARTUP)|PERL5?LIB|DRAY_TOKEN"
)
"""What is in an image has no use for the last one, and may be anybody's."""
_FAMILIES: Final = (
    *("SLURM", "SLURMD", "SPANK", "FLUX", "PBS", "PALS", "PMI", "PMI2", "PMIX"),
    *("OMPI", "MPI", "MPICH", "I_MPI", "UCX", "FI", "OMP", "KMP", "GOMP"),
    *("CUDA", "NVIDIA", "ROCR", "HIP", "GPU", "ZE", "DRAY", "SHIFTER"),
)
OF_JOBS: Final = re.compile(rf"({'|'.join(_FAMILIES)})_.+|PBS[A-Z]+")
"""The scheduler's, and those of what starts ranks and spreads them over cores and devices."""
_NAME: Final = re.compile(r"[^=\0]+")


class VariableRefusedError(InvalidInputError):
    """A variable that cannot be set as it is written."""

    code = "environment_refused"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a module or the site does to the environment."""

    set: Mapping[str, str] = field(default_factory=dict)
    prepend: Mapping[str, str] = field(default_factory=dict)
    append: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()

    def apply(self, env: dict[str, str]) -> None:
        for name in self.unset:
            env.pop(name, None)
        env.update(self.set)
        for name, value in self.prepend.items():
            env[name] = f"{value}:{env[name]}" if env.get(name) else value
        for name, value in self.append.items():
            env[name] = f"{env[name]}:{value}" if env.get(name) else value


def compose(
    host: Mapping[str, str],
    image: Iterable[str],
    *,
    file: str = "",
    options: Iterable[str] = (),
    changes: Iterable[Changes] = (),
    whole_host: bool = False,
) -> dict[str, str]:
    """`image` and `options` are NAME=VALUE; an option that is only a NAME takes the host's value.

    Of the host come who one is, and what ranks find each other by; or, as Shifter has it, all but
    PATH and what could not work in an image.
    """
    if whole_host:
        kept = [name for name in host if name != "PATH"]
    else:
        kept = [name for name in host if name in FROM_HOST or OF_JOBS.fullmatch(name)]
    env = {name: host[name] for name in kept if not NEVER.fullmatch(name)}
    for entry in image:
        name, _, value = entry.partition("=")
        if name:
            env[name] = value
    if not env.get("PATH"):
        env["PATH"] = DEFAULT_PATH
    env |= parse_env_file(file)
    for option in options:
        name, given, value = option.partition("=")
        if not _NAME.fullmatch(name) or "\0" in value:
            raise VariableRefusedError(
                f"--env {option!r}: write NAME=VALUE, or NAME to take it over from here"
            )
        if given:
            env[name] = value
        elif name in host:
            env[name] = host[name]
    for change in changes:
        change.apply(env)
    return env


def parse_env_file(text: str) -> dict[str, str]:
    """Lines NAME=VALUE as Docker reads them: as they are, quotes and all; # begins a comment."""
    env: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.lstrip()
        if not entry or entry.startswith("#"):
            continue
        name, given, value = entry.partition("=")
        if not given or not name or len(name.split()) != 1 or name[-1:].isspace() or "\0" in entry:
            raise VariableRefusedError(
                f"line {number} of the environment file is not NAME=VALUE: {entry[:80]!r}"
            )
        env[name] = value
    return env
