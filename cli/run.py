"""`dray run`: what becomes of an image's words and the user's, by Docker's rules."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import of_job
from cli.errors import UsageError
from cli.into_image import Program
from cli.of_job import Wants
from cli.words import Words
from shared.inside.environment import DEFAULT_PATH, compose
from shared.inside.manifest import apply
from shared.inside.module_names import read_module_names
from shared.inside.volumes import parse_volumes

_LARGEST_FILE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wrote. Without a command: the image's own."""

    name: str
    """How they called the image, for examples."""
    command: tuple[str, ...]
    options: tuple[str, ...]
    file: str
    workdir: str | None
    entrypoint: str | None

    def program(self, words: Words) -> Program:
        command = self.command_for(words)
        env = environment(words, os.environ, file=self.file, options=self.options)
        return Program(command, env, absolute(self.workdir or words.workdir or None))

    def command_for(self, words: Words) -> tuple[str, ...]:
        """Docker's rule: the entrypoint, then the user's words or else the image's.

        An entrypoint of the user's own takes the image's words away with the image's entrypoint.
        """
        if self.entrypoint is not None:
            entrypoint = (self.entrypoint,) if self.entrypoint else ()
            command = entrypoint + self.command
        else:
            command = words.entrypoint + (self.command or words.cmd)
        if not command:
            raise UsageError(
                f"{words.name} does not say what to run: write a command behind it, "
                f"for example: dray run {self.name} /bin/sh"
            )
        return command


def wants(volumes: Sequence[str], modules: Sequence[str]) -> Wants:
    """In a job with its volumes, but where others take their places, or else its modules."""
    of_the_job = of_job.wants(os.environ)
    own = parse_volumes(volumes, env=os.environ)
    taken = {volume.target for volume in own}
    kept = (volume for volume in of_the_job.volumes if volume.target not in taken)
    return Wants((*kept, *own), read_module_names(modules) or of_the_job.modules)


def environment(
    words: Words,
    host: Mapping[str, str],
    *,
    file: str,
    options: tuple[str, ...],
    whole_host: bool = False,
) -> dict[str, str]:
    """With what the node's modules and the site have to say at the end."""
    env = compose(host, words.env, file=file, options=options, whole_host=whole_host)
    apply(words.changes, env)
    env["PATH"] = env.get("PATH") or DEFAULT_PATH
    return env


def absolute(workdir: str | None) -> str | None:
    """None: it stays where the user is, as far as the image has it."""
    if workdir is not None and not workdir.startswith("/"):
        raise UsageError(f"the working directory {workdir!r} must begin with '/'")
    return workdir


def read_env_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_LARGEST_FILE + 1)
    except OSError as exc:
        raise UsageError(f"cannot read the environment file {path}: {exc.strerror}") from exc
    if len(text) > _LARGEST_FILE:
        raise UsageError(f"the environment file {path} is larger than {_LARGEST_FILE >> 20} MiB")
    return text
