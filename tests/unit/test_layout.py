"""The architecture as far as imports can break it: who may know whom, and who needs what."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "converter", "distributor", "node_agent")
COMPOSERS = {"cli/up.py": set(SERVICES), "cli/convert.py": {"converter"}}
LONGEST = 350
FOLDERS = ("shared", "services", "cli", "deploy", "bench", "tests")

BROKER = {"aio_pika"}
DATABASES = {"pymongo", "bson", "aiosqlite"}
CODECS = {"isal", "zstandard"}
COMMAND_LINE = {"typer", "rich"}


def modules(*folders: str) -> list[str]:
    """Paths of Python files below the folders, relative to the project."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    )


def imports(module: str) -> Iterator[str]:
    """What a module imports by absolute name, wherever in it."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where a module belongs"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def service_of(name: str) -> str | None:
    """The service that an imported name belongs to."""
    parts = name.split(".")
    return parts[1] if parts[0] == "services" and len(parts) > 1 else None


def test_these_are_all_the_services() -> None:
    found = {path.parent.name for path in (ROOT / "services").glob("*/app.py")}
    assert found == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_services_never_import_each_other(service: str) -> None:
    found = modules(f"services/{service}")
    assert found
    for module in found:
        others = {service_of(name) for name in imports(module)} - {None, service}
        assert not others, f"{module} imports {others}"


@pytest.mark.parametrize("module", modules("shared", "cli"))
def test_shared_and_cli_know_no_service(module: str) -> None:
    known = {service_of(name) for name in imports(module)} - {None}
    assert known == COMPOSERS.get(module, set())


@pytest.mark.parametrize("module", modules("shared"))
def test_shared_knows_nobody_above_it(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & {"cli", "deploy", "tests"}


@pytest.mark.parametrize("module", modules("services", "cli"))
def test_what_is_installed_needs_nothing_that_is_not(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & {"deploy", "tests", "bench"}


def test_only_the_gateway_opens_the_catalog() -> None:
    """Others may use its models; a catalog is opened by `catalog.open` alone."""
    users = {
        service_of(module.replace("/", "."))
        for module in modules("services")
        if any(name.startswith("shared.catalog.open") for name in imports(module))
    }
    assert users == {"gateway"}


def test_no_module_is_too_long() -> None:
    lengths = {
        module: len((ROOT / module).read_text(encoding="utf-8").splitlines())
        for module in modules(*FOLDERS)
    }
    assert {module: length for module, length in lengths.items() if length > LONGEST} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        module
        for module in modules(*FOLDERS)
        if (text := (ROOT / module).read_text(encoding="utf-8"))
        and ast.get_docstring(ast.parse(text)) is None
    ]
    assert silent == []


def closure(module: str, forbidden: AbstractSet[str] = frozenset()) -> set[str]:
    """The top-level packages that importing `module` brings in, in a process of its own.

    What is forbidden cannot be imported there, as on a machine where it is not installed.
    """
    program = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[2]): sys.modules[name] = None\n"
        "importlib.import_module(sys.argv[1])\n"
        "found = {n.partition('.')[0] for n, m in sys.modules.items() if m is not None}\n"
        "print(json.dumps(sorted(found)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, module, json.dumps(sorted(forbidden))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("service", "absent"),
    [
        ("gateway", CODECS | COMMAND_LINE),
        ("converter", DATABASES | COMMAND_LINE),
        ("distributor", DATABASES | CODECS | COMMAND_LINE),
        ("node_agent", DATABASES | CODECS | COMMAND_LINE),
    ],
)
def test_a_service_needs_no_packages_of_other_roles(service: str, absent: set[str]) -> None:
    assert not closure(f"services.{service}.app", absent) & absent


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_needs_no_broker_client_where_there_is_no_broker(service: str) -> None:
    absent = BROKER | DATABASES
    assert not closure(f"services.{service}.app", absent) & absent


@pytest.mark.parametrize("command", ["cli.main", "cli.gateway", "cli.run"])
def test_a_command_starts_without_what_only_services_need(command: str) -> None:
    heavy = {"pydantic", "aiohttp", "yaml", "structlog", "prometheus_client"}
    absent = heavy | BROKER | DATABASES | CODECS
    assert not closure(command, absent) & absent


def test_the_check_itself_sees_an_import() -> None:
    assert closure("shared.bus.rabbitmq") >= BROKER
    assert closure("shared.catalog.sqlite") >= {"aiosqlite"}
