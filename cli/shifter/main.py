"""`shifter`: a command in an image, with what Shifter's users expect around it.

The whole environment comes along, the command is the user's shell if none is given, and the
image's entrypoint and working directory count only where they are asked for.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

from cli import of_job
from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, UsageError
from cli.into_image import Program, Target, run_in_directory, run_in_image
from cli.of_job import Wants
from cli.output import complain
from cli.run import absolute, environment, read_env_file
from cli.shifter.image import LOCAL, Asked, asked_for, variable
from cli.shifter.options import USAGE, Options, parse_options
from cli.shifterimg.conf import Conf, find_conf
from cli.show import plain
from cli.words import Words
from shared.errors import DrayError
from shared.inside.module_names import read_module_names
from shared.inside.volumes import parse_volumes

_CANNOT_RUN: Final = 127
_OF_COMMANDS: Final = frozenset({"command_not_found", "command_not_executable"})
_WAIT_SECONDS: Final = 60.0
_SHELL: Final = ("/bin/sh", "-c", '[ -x "$SHELL" ] && exec "$SHELL"; exec /bin/sh')
"""The image may have another one than the user."""
_LEFT: Final = frozenset({"TMPDIR"})
"""Where the host has room for files is nowhere in an image."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options make of an image's words."""

    options: Options
    file: str
    request: str

    def program(self, words: Words) -> Program:
        if self.options.verbose:
            complain(f"shifter: image {plain(words.image_id)} ({plain(words.name)})")
        host = {} if self.options.clear_env else _host(os.environ)
        host |= {
            "SHIFTER_RUNTIME": "1",
            "SHIFTER_IMAGE": words.image_id,
            "SHIFTER_IMAGEREQUEST": self.request or words.name,
        }
        env = environment(words, host, file=self.file, options=self.options.env, whole_host=True)
        return Program(self.command_for(words), env, self._workdir(words))

    def command_for(self, words: Words) -> tuple[str, ...]:
        options = self.options
        if options.entrypoint is None:
            return options.command or _SHELL
        if options.entrypoint:
            return (options.entrypoint, *options.command)
        if not words.entrypoint:
            raise UsageError(f"{words.name} has no entrypoint: leave out --entrypoint")
        return words.entrypoint + (options.command or words.cmd)

    def _workdir(self, words: Words) -> str | None:
        wanted = self.options.workdir
        if wanted == "" and not words.workdir:
            raise UsageError(
                f"{words.name} names no directory to work in: write --workdir=/DIRECTORY"
            )
        return absolute(words.workdir if wanted == "" else wanted)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Become the command; the exit code is of what kept us from it."""
    try:
        options = parse_options(arguments)
        if options is not None:
            _run(options)
        print(USAGE, end="", flush=True)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except DrayError as exc:
        complain(f"shifter: {plain(exc.message)}")
        if isinstance(exc, UsageError):
            complain("Try 'shifter --help'.")
        return _CANNOT_RUN if exc.code in _OF_COMMANDS else EXIT_FAILED
    except OSError as exc:
        complain(f"shifter: {plain(exc.filename or 'here')}: {exc.strerror or exc}")
        return EXIT_FAILED
    return 0


def _run(options: Options) -> NoReturn:
    conf = cache(find_conf)
    asked = asked_for(options.image, os.environ, conf)
    wish = Wish(
        options,
        file=read_env_file(Path(options.env_file)) if options.env_file else "",
        request=asked.request if asked else "",
    )
    wants = _wants(options)
    if asked is None and not of_job.images(os.environ):
        raise UsageError(
            "no image is named, and this is no job that has one: name it, for example: shifter "
            "--image=docker:alpine:3, or submit the job with --image"
        )
    if asked is not None and asked.itype == LOCAL:
        run_in_directory(_directory(asked), wants, wish, _socket())
    run_in_image(_target(asked, wants, conf), wish)


def _target(asked: Asked | None, wants: Wants, conf: Callable[[], Conf | None]) -> Target:
    url = os.environ.get("DRAY_URL")
    system = None
    if not url and asked is not None and of_job.image_named(asked.reference, os.environ) is None:
        found = conf()
        if found is not None:
            url, system = ",".join(found.gateways), found.system
    return Target(
        reference=asked.reference if asked else None,
        wants=wants,
        url=url or LOCAL_GATEWAY,
        socket=_socket(),
        system=system,
        wait=_WAIT_SECONDS,
    )


def _socket() -> Path | None:
    named = os.environ.get("DRAY_SOCKET")
    return Path(named) if named else None


def _wants(options: Options) -> Wants:
    """Options, else Shifter's variables, else what the job was submitted with."""
    env = os.environ
    of_the_job = of_job.wants(env)
    volumes = options.volumes or tuple(filter(None, [variable("VOLUME", env)]))
    module = variable("MODULE", env) if options.module is None else options.module
    return Wants(
        parse_volumes(volumes, env=env) if volumes else of_the_job.volumes,
        read_module_names([module]) if module else of_the_job.modules,
    )


def _directory(asked: Asked) -> Path:
    directory = Path(asked.name)
    if not directory.is_absolute() or not directory.is_dir():
        raise UsageError(f"{asked.request}: write local: and the whole path of a directory")
    return directory


def _host(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in _LEFT}
