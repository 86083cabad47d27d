"""What an image says of how it is run, and what its node's modules and the site add to that."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.errors import CliError
from shared.inside.manifest import CHANGES, CMD, ENTRYPOINT, ENV, SET, WORKDIR, read_words

if TYPE_CHECKING:
    from cli.answers import Program

_LARGEST: Final = 16 << 20


class NoWordsError(CliError):
    """What an inside says of itself cannot be read."""

    code = "not_entered"


@dataclass(frozen=True, slots=True)
class Words:
    """Of one image. `changes` are operations on the environment, for `manifest.apply`."""

    name: str
    image_id: str
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    changes: tuple[str, ...] = ()


def of_program(image: "Program", changes: tuple[str, ...] = ()) -> Words:
    return Words(
        image.reference,
        image.id,
        image.env,
        image.entrypoint,
        image.cmd,
        image.workdir,
        changes,
    )


def of_inside(pinned: Path, name: str, image_id: str) -> Words:
    """As the node's agent wrote them down."""

    def read(file: str) -> tuple[str, ...]:
        try:
            with (pinned / file).open("rb") as opened:
                return tuple(read_words(opened.read(_LARGEST)))
        except OSError as exc:
            raise NoWordsError(
                f"cannot read {file} of the image that this node's agent prepared at {pinned}: "
                f"{exc.strerror}; has the job ended?"
            ) from exc

    return Words(
        name,
        image_id,
        env=tuple(each.removeprefix(SET) for each in read(ENV)),
        entrypoint=read(ENTRYPOINT),
        cmd=read(CMD),
        workdir="".join(read(WORKDIR)),
        changes=read(CHANGES),
    )
