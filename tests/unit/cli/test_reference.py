"""docs/cli.md against the command itself."""

import re
from pathlib import Path

from cli import errors, proof
from cli.completion import Place, places
from cli.main import app

PAGE = (Path(__file__).parents[3] / "docs/cli.md").read_text()
COMMANDS = {place.path: place for place in places(app) if place.path != "dray"}


def _sections() -> dict[str, str]:
    parts = re.split(r"(?m)^### `(dray[a-z ]+)`\n", PAGE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_a_section_and_no_section_is_without_a_command() -> None:
    assert _sections().keys() == COMMANDS.keys()


def test_every_section_has_an_example_whose_options_exist() -> None:
    for path, text in _sections().items():
        place = COMMANDS[path]
        if place.commands and path in {"dray hook", "dray store"}:
            continue
        lines = "\n".join(re.findall(r"(?ms)^```\n(.*?)^```", text)).splitlines()
        assert any(line.startswith(path) for line in lines), path
        for line in lines:
            for option in _options(line.partition(" | ")[0], path):
                assert option in _names(place), (line, option)


def _options(line: str, path: str) -> list[str]:
    # What stands behind an image is another command's.
    given = line if path != "dray run" else re.split(r" (?:--|cat) ", line)[0]
    return re.findall(r"(?<= )--?[a-z-]+(?= |$)", given) if given.startswith(path) else []


def _names(place: Place) -> set[str]:
    return {name for option in place.options for name in option.names}


def test_every_exit_code_is_told() -> None:
    table = PAGE.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    codes = {value for name, value in vars(errors).items() if re.fullmatch("EXIT_[A-Z]+", name)}
    codes |= {errors.EXIT_NOT_RUN, errors.EXIT_READER_GONE}
    told = {int(code) for code in re.findall(r"\b\d+\b", table)}
    assert {code for code in codes if isinstance(code, int)} <= told


def test_every_variable_is_told() -> None:
    table = PAGE.partition("\n## Environment\n")[2].partition("\n## ")[0]
    for name in (proof.TOKEN, proof.TOKEN_FILE, proof.MUNGE_SOCKET):
        assert f"`{name}`" in table
    for place in COMMANDS.values():
        for option in place.options:
            for name in re.findall(r"[A-Z_]+", option.env or ""):
                assert f"`{name}`" in table, option
