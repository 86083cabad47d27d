"""The documents against the code: every setting, example, link and command that they name."""

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import pytest
import typer
import yaml
from annotated_types import Ge, Gt, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from cli.main import app
from shared.bus.connect import connect_bus
from shared.catalog.open import catalog_at
from shared.config import Settings, load_settings

ROOT: Final = Path(__file__).parents[2]
SETTINGS: Final = ROOT / "docs/settings.md"
DOCUMENTS: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
OF_THE_SITE: Final = {"systems": "NAME", "registries": "HOST"}
DEFAULTS_IN_WORDS: Final = {
    "store_dir": "`DATA_DIR/store`",
    "agent.run_dir": "`DATA_DIR/agent`",
    "gateway.socket": "`DATA_DIR/gateway.sock`",
    "agent.node": "this host's",
    "systems.NAME.platform": "this machine's",
}
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AT_START: Final = r"(?m)^(?:\$ )?(?:\.venv/bin/)?"
SPAN: Final = re.compile(r"`([^`\n]+)`")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("DRAY_"):
            monkeypatch.delenv(name)


def settings_below(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every single setting by its key; NAME and HOST stand for what a site calls its own."""
    for name, field in model.model_fields.items():
        key = prefix + name
        kind = field.annotation
        if get_origin(kind) is dict and name in OF_THE_SITE:
            kind = get_args(kind)[1]
            key += f".{OF_THE_SITE[name]}"
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_below(kind, f"{key}.")
        else:
            yield key, field


FIELDS: Final = dict(settings_below(Settings))


def rows() -> dict[str, list[str]]:
    """The reference's rows: value, default and text by key."""
    reference = SETTINGS.read_text().partition("\n## Reference\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([^`]+)` \| (.*) \|$", reference, re.MULTILINE)
    keys = [key for key, _ in found]
    assert len(keys) == len(set(keys))
    return {key: rest.split(" | ") for key, rest in found}


def default_of(key: str, field: FieldInfo) -> str:
    if key in DEFAULTS_IN_WORDS:
        return DEFAULTS_IN_WORDS[key]
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, tuple):
        value = "[" + ", ".join(f'"{each}"' for each in value) + "]"
    return f"`{value}`"


def bounds_of(field: FieldInfo) -> str | None:
    """The words that the reference must have for this type; None where it is free to choose."""
    if field.annotation is bool:
        return "`true` or `false`"
    if get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        if all(isinstance(choice, int) for choice in choices):
            assert [choices[0] << n for n in range(len(choices))] == list(choices)
            return f"power of two, {choices[0]}–{choices[-1]}"  # noqa: RUF001
        return " or ".join((", ".join(f"`{c}`" for c in choices[:-1]), f"`{choices[-1]}`"))
    limits = {type(limit): limit for limit in field.metadata}
    if field.annotation is float and Ge in limits:
        return f"{limits[Ge].ge}–{limits[Le].le}"  # noqa: RUF001
    if field.annotation is float:
        assert limits == {Gt: Gt(0), Le: Le(604800)}
        return "seconds"
    if field.annotation is int:
        lowest = limits[Ge].ge
        return f"{lowest}–{limits[Le].le}" if Le in limits else f"≥ {lowest}"  # noqa: RUF001
    return None


def test_the_reference_has_exactly_the_settings_that_there_are() -> None:
    assert rows().keys() == FIELDS.keys()


@pytest.mark.parametrize("key", FIELDS)
def test_a_setting_has_its_true_default_and_range(key: str) -> None:
    value, default, text = rows()[key]
    assert default == default_of(key, FIELDS[key])
    assert value == (bounds_of(FIELDS[key]) or value)
    assert text


def test_defaults_in_words_are_what_happens() -> None:
    settings = Settings.model_validate({"data_dir": "DATA_DIR", "agent": {}})
    assert DEFAULTS_IN_WORDS["store_dir"] == f"`{settings.store}`"
    assert DEFAULTS_IN_WORDS["agent.run_dir"] == f"`{settings.agent_dir}`"
    assert DEFAULTS_IN_WORDS["gateway.socket"] == f"`{settings.gateway_socket}`"
    assert settings.catalog_url == "sqlite:///DATA_DIR/catalog.db"
    assert settings.systems["local"].image_dir == Path("DATA_DIR/images")
    for key in ("agent.node", "systems.NAME.platform"):
        assert FIELDS[key].default_factory is not None


def test_every_key_that_the_page_mentions_exists() -> None:
    sections = {key.partition(".")[0] for key in FIELDS}
    known = {".".join(key.split(".")[:depth]) for key in FIELDS for depth in range(1, 5)}
    dotted = re.compile(r"([a-z_]+)(\.\w+)+")
    mentioned = [span for span in SPAN.findall(SETTINGS.read_text()) if dotted.fullmatch(span)]
    assert "bus.url" in mentioned
    unknown = {s for s in mentioned if s.partition(".")[0] in sections} - known
    assert unknown <= {"catalog.db", "agent.sock", "gateway.secret"}, (
        "neither settings nor names of files"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_variable_sets_something(document: Path) -> None:
    known = {key.upper().replace(".", "__") for key in FIELDS} | {"SECTION__KEY"}
    for variable in re.findall(r"\bDRAY_([A-Z_]+__[A-Z_]+)", document.read_text()):
        generic = re.sub(r"^SYSTEMS__[A-Z]+?__", "SYSTEMS__NAME__", variable)
        assert generic in known


def test_the_example_of_one_machine_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_example(0, tmp_path, monkeypatch)
    assert settings.data_dir.is_relative_to(tmp_path)
    assert settings.bus.url.get_secret_value() == "embedded:"
    [registry] = settings.registries.values()
    assert registry.username
    assert registry.password_file


def test_the_example_of_a_site_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(text for kind, text in fences(SETTINGS) if kind == "sh").splitlines()
    variables = dict(line.split("=", 1) for line in lines if line.startswith("DRAY_"))
    assert len(variables) == 2
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_example(1, tmp_path, monkeypatch)
    assert connect_bus(settings, "test").durable
    catalog_at(settings.catalog_url, timeout=settings.catalog.timeout)
    packs = {name: system.pack.compression for name, system in settings.systems.items()}
    assert packs == {"cluster": "zstd", "old": "gzip"}
    assert settings.agent.system == "cluster"
    monkeypatch.setenv("DRAY_AGENT__SYSTEM", "old")
    assert load_example(1, tmp_path, monkeypatch).agent.system == "old"


def load_example(number: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The page's example of this number, with its paths below `directory`, from a file."""
    examples = [text for kind, text in fences(SETTINGS) if kind == "yaml"]
    assert len(examples) == 2
    content = re.sub(r"(: )/(?=\w)", rf"\1{directory}/", examples[number])
    assert yaml.safe_load(content) != yaml.safe_load(examples[number])
    file = directory / "dray.yaml"
    file.write_text(content)
    monkeypatch.setenv("DRAY_CONFIG", str(file))
    return load_settings()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    prose = FENCE.sub("", document.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_settings_can_be_found() -> None:
    assert "(docs/settings.md)" in (ROOT / "README.md").read_text()
    assert "(settings.md)" in (ROOT / "docs/architecture.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for text in code(document):
        for words in re.findall(rf"{AT_START}dray((?: [a-z]+)+)", text):
            assert is_command(words.split()), text
        for words in re.findall(rf"{AT_START}make((?: [a-z-]+)+)", text):
            assert set(words.split()) <= targets, text
        for module in re.findall(r"python -m ([\w.]+)", text):
            assert is_runnable(module), text


def is_runnable(module: str) -> bool:
    spec = find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        return spec is not None
    return find_spec(f"{module}.__main__") is not None


def test_the_check_of_commands_can_fail() -> None:
    assert is_command(["queue", "dead"])
    assert is_command(["pull", "alpine"])
    assert not is_command(["queue", "alive"])
    assert not is_command(["push"])
    assert is_runnable("bench.tree")
    assert is_runnable("bench.enter")
    assert not is_runnable("bench.nothing")
    assert not is_runnable("bench")


def is_command(words: list[str]) -> bool:
    """Words after a command without subcommands are its arguments."""
    command: object = typer.main.get_command(app)
    for word in words:
        if not isinstance(command, TyperGroup):
            return True
        if word not in command.commands:
            return False
        command = command.commands[word]
    return True


def fences(document: Path) -> list[tuple[str, str]]:
    return FENCE.findall(document.read_text())


def code(document: Path) -> list[str]:
    """Code blocks and code spans."""
    text = document.read_text()
    blocks = [block for _, block in FENCE.findall(text)]
    return [*blocks, *SPAN.findall(FENCE.sub("", text))]


def anchors(document: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
