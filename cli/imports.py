"""`dray import`: ask for an image of a file, and watch it come as any other."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cli.errors import UsageError
from cli.gateway import Gateway
from cli.http import Json
from cli.progress import MEANING
from cli.pull import Asked, watched
from shared.errors import InvalidReferenceError
from shared.formats import FORMATS
from shared.imported import parse_imported
from shared.states import State

STAGES: Final = {**MEANING, State.PULLING: "reading the file"}


@dataclass(frozen=True, slots=True)
class ImportWish:
    """What somebody wants to import, in their words."""

    path: str
    name: str
    format: str = "auto"
    image: str | None = None
    system: str | None = None
    public: bool = False
    force: bool = False
    uids: tuple[int, ...] | None = None
    gids: tuple[int, ...] | None = None


def import_(gateway: Gateway, wish: ImportWish, *, wait: bool, json: bool) -> int:
    """The exit code: 0 READY (or accepted, if not waited for), 1 FAILURE."""
    wish = _untyped(wish)
    path = _absolute(wish.path)
    answer = gateway.call("POST", "/imports", body=_body(wish, path))
    again = _command(wish, path, gateway.option)
    remark = "imported anew" if wish.force else "unchanged" if answer.status == 200 else ""
    return watched(gateway, answer, Asked("import", again, remark, STAGES), wait=wait, json=json)


def _untyped(wish: ImportWish) -> ImportWish:
    """A format may stand before the file, as `dray convert` has it: dir:/scratch/tree."""
    format_, colon, path = wish.path.partition(":")
    if not colon or format_ not in FORMATS or Path(wish.path).exists():
        return wish
    return replace(wish, format=format_, path=path)


def _absolute(text: str) -> str:
    """The file as the services see it, who have another working directory."""
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise UsageError("a file whose name has control characters cannot be imported: rename it")
    path = Path(text)
    if path.is_absolute():
        return str(path)  # which this machine need not see
    if not path.exists():
        raise UsageError(f"there is no {text} here: check the path")
    # Not resolved: links are followed when it is read, with the reader's rights.
    return str(path.absolute())


def _body(wish: ImportWish, path: str) -> Json:
    try:
        name = str(parse_imported(wish.name))
    except InvalidReferenceError as exc:
        raise UsageError(exc.message) from exc
    body: Json = {"name": name, "path": path, "format": wish.format}
    given = {
        "image": wish.image,
        "system": wish.system,
        "public": wish.public or None,
        "force": wish.force or None,
        "allowed_uids": wish.uids,
        "allowed_gids": wish.gids,
    }
    return body | {key: value for key, value in given.items() if value is not None}


def _command(wish: ImportWish, path: str, url: str | None) -> str:
    """What joins it again, from wherever it is typed."""
    options = {
        "--url": url,
        "--system": wish.system,
        "--format": None if wish.format == "auto" else wish.format,
        "--image": wish.image,
    }
    words = [word for name, value in options.items() if value for word in (name, value)]
    if wish.public:
        words.append("--public")
    return shlex.join(["dray", "import", *words, path, wish.name])
