"""The two small files beside each image: `<id>.meta` for Shifter's runtime, `<id>.json` for ours.

Shifter's udiRoot reads `.meta` line by line: one `ENV` line for each variable, lists as Python
writes them, the separator ": ", and it knows no other keys. A variable or work directory that
would break its line cannot be said in this format and is left to `<id>.json`.
"""

import os
from pathlib import Path

from shared.files import publishing
from shared.image.recipe import Recipe
from shared.models import Tolerant


class Sidecar(Tolerant):
    """`<id>.json`: enough to check an image, to make it again, and to run something in it."""

    v: int = 1
    recipe: Recipe


def write_sidecars(image: Path, recipe: Recipe) -> None:
    _write(image.with_suffix(".meta"), shifter_meta(recipe).encode())
    sidecar = Sidecar(recipe=recipe)
    _write(image.with_suffix(".json"), sidecar.model_dump_json().encode())


def shifter_meta(recipe: Recipe) -> str:
    config = recipe.config
    lines = ["FORMAT: squashfs"]
    if config.entrypoint:
        lines.append(f"ENTRY: {list(config.entrypoint)!r}")
    if config.cmd:
        lines.append(f"CMD: {list(config.cmd)!r}")
    if config.workdir and _fits_a_line(config.workdir):
        lines.append(f"WORKDIR: {config.workdir}")
    lines += [f"ENV: {variable}" for variable in config.env if _fits_a_line(variable)]
    return "\n".join(lines) + "\n"


def _fits_a_line(text: str) -> bool:
    return not any(character in text for character in "\n\r\0")


def _write(path: Path, content: bytes) -> None:
    with publishing(path) as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o644)
