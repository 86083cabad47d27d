"""`dray run`: have an image mounted on this node, run a command inside it, give it back."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from cli.agent import Agent
from cli.answers import Image, read_image
from cli.errors import UsageError
from cli.gateway import Gateway
from cli.supervise import run_inside
from shared.errors import DrayError

USUAL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wrote."""

    reference: str
    system: str | None
    command: tuple[str, ...]
    options: tuple[str, ...]
    workdir: str | None
    entrypoint: str | None


def run_in_image(url: str, socket: Path | None, wish: Wish, wait: float) -> int:
    """The command's own exit status."""
    image = read_image(Gateway(url).image(wish.reference, wish.system))
    command = command_for(wish, image)
    env = environment_for(wish, image)
    workdir = workdir_for(wish, image)
    agent = Agent(socket)
    with _held(agent, image, wait) as root:
        return run_inside(root, command, env=env, workdir=workdir)


@contextmanager
def _held(agent: Agent, image: Image, wait: float) -> Iterator[Path]:
    """The image, mounted for a job of our own, until the body ends in whatever way."""
    job_id = f"run-{os.getpid()}-{secrets.token_hex(4)}"
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield Path(agent.mount(job_id, image, wait))
    finally:
        # A second signal must not keep the image mounted; the agent answers within its margin.
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        _release(agent, job_id)
        for number, handler in before.items():
            signal.signal(number, handler)


def _release(agent: Agent, job_id: str) -> None:
    """What the command did stands, whether or not the agent can be told that it is over."""
    try:
        agent.release(job_id)
    except DrayError as exc:
        print(f"dray: the image stays mounted for {job_id}: {exc.message}", file=sys.stderr)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """While we wait for the mount, a signal ends us, but not before the mount is given back."""
    sys.exit(128 + number)


def command_for(wish: Wish, image: Image) -> tuple[str, ...]:
    """Docker's rule: the entrypoint, then the user's words or else the image's.

    An entrypoint of the user's own takes the image's words away with the image's entrypoint.
    """
    if wish.entrypoint is not None:
        entrypoint = (wish.entrypoint,) if wish.entrypoint else ()
        command = entrypoint + wish.command
    else:
        command = image.entrypoint + (wish.command or image.cmd)
    if not command:
        raise UsageError(
            f"{image.reference} does not say what to run: write a command behind it, "
            f"for example: dray run {wish.reference} /bin/sh"
        )
    return command


def environment_for(wish: Wish, image: Image) -> dict[str, str]:
    """The image's variables, then the options; nothing else of the host comes along."""
    env = {"PATH": USUAL_PATH}
    if sys.stdin.isatty() and "TERM" in os.environ:
        env["TERM"] = os.environ["TERM"]
    for entry in image.env:
        name, _, value = entry.partition("=")
        if name:
            env[name] = value
    for option in wish.options:
        name, given, value = option.partition("=")
        if not name or "\0" in option:
            raise UsageError(f"-e {option!r}: write NAME=VALUE, or NAME to take it over from here")
        if given:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return env


def workdir_for(wish: Wish, image: Image) -> str | None:
    """The user's, else the image's; else it stays where the user is, as far as the image has it."""
    workdir = wish.workdir or image.workdir or None
    if workdir is not None and not workdir.startswith("/"):
        raise UsageError(f"the working directory {workdir!r} must begin with '/'")
    return workdir
