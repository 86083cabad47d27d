"""The container files against the code: no engine runs them here, so every claim is checked."""

import asyncio
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import BaseModel

from cli.defaults import SITE_SOCKETS
from cli.gateway import Gateway as GatewayClient
from shared.bus.connect import connect_bus
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import work_queues
from shared.catalog.open import catalog_at
from shared.config import CONFIG_FILE_VARIABLE, Settings, load_settings
from shared.deadline import Deadline
from shared.service import START_SECONDS, STOP_SECONDS
from tests.support.containers import (
    ROOT,
    compose_variables,
    read_compose,
    read_dockerfile,
    read_rabbitmq_conf,
    shell_words,
    volumes,
)
from tests.support.ports import free_port

SECRETS = {name: f"{name}-0123".replace("_", "").lower() for name in compose_variables()}
COMPOSE = read_compose(SECRETS)
SERVICES: dict[str, Any] = COMPOSE["services"]
STAGES = read_dockerfile()
OURS = {name: spec for name, spec in SERVICES.items() if "build" in spec}
OF_THE_CLI = {"DRAY_URL"}
WATCHING = {"prom/prometheus:v3.5.0", "grafana/grafana:11.6.0"}
SECTIONS = {
    "services.gateway": "gateway",
    "services.converter": "converter",
    "services.distributor": "distributor",
    "services.node_agent": "agent",
}
HEALTH = ROOT / "deploy/docker/health.py"


def target_of(name: str) -> str:
    target: str = OURS[name]["build"]["target"]
    return target


def module_of(name: str) -> str:
    python, flag, module = STAGES[target_of(name)].command()
    assert (python, flag) == ("python", "-m")
    return module


def health_urls(name: str) -> list[str]:
    """The URL that the image's own health check asks, and the one of the compose file."""
    return [STAGES[target_of(name)].healthcheck()[-1], OURS[name]["healthcheck"]["test"][-1]]


def mounted_at(name: str, target: str) -> Path:
    source = next(volume.source for volume in volumes(OURS[name]) if volume.target == target)
    return ROOT / source


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Settings]:
    """The settings that a container's service would read."""

    def load(name: str) -> Settings:
        for key, value in OURS[name]["environment"].items():
            path = mounted_at(name, value) if key == CONFIG_FILE_VARIABLE else value
            monkeypatch.setenv(key, str(path))
        return load_settings()

    return load


def listen_of(settings: Settings, name: str) -> tuple[str, int]:
    host, _, port = getattr(settings, SECTIONS[module_of(name)]).listen.rpartition(":")
    return host, int(port)


def test_every_role_is_there() -> None:
    assert {module_of(name) for name in OURS} == set(SECTIONS)
    assert sum(module_of(name) == "services.gateway" for name in OURS) == 2
    assert OURS["converter"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", OURS)
def test_the_image_can_be_built_and_started(name: str) -> None:
    build = OURS[name]["build"]
    assert (ROOT / build["context"]).samefile(ROOT)
    assert (ROOT / build["dockerfile"]).is_file()
    assert importlib.util.find_spec(f"{module_of(name)}.__main__") is not None
    stage = STAGES[target_of(name)]
    assert stage.all("COPY") == [f"--from={target_of(name)}-packages /opt/dray /opt/dray"]


@pytest.mark.parametrize("target", sorted({target_of(name) for name in OURS}))
def test_an_image_installs_its_roles_extra_only(target: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installing = " ".join(STAGES[f"{target}-packages"].all("RUN"))
    assert re.findall(r"\.\[(.*?)\]", installing) == [target]
    assert target in known["optional-dependencies"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    sent = (ROOT / "deploy/docker/Dockerfile.dockerignore").read_text().splitlines()
    for stage in STAGES.values():
        for line in stage.all("COPY"):
            *sources, _ = line.split()
            for source in sources:
                if not source.startswith(("--from=", "/")):
                    assert (ROOT / source).exists(), source
                    assert f"!{source}" in sent


def test_base_images_have_a_tag() -> None:
    bases = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    bases |= {spec["image"] for name, spec in SERVICES.items() if name not in OURS}
    assert bases == {"python:3.13-slim", "rabbitmq:4-management", "mongo:8", *WATCHING}
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python == ">=3.11"


@pytest.mark.parametrize("name", OURS)
def test_every_environment_key_is_a_setting(name: str) -> None:
    for key in OURS[name]["environment"]:
        if key in {CONFIG_FILE_VARIABLE, *OF_THE_CLI}:
            continue
        model: Any = Settings
        for part in key.removeprefix("DRAY_").lower().split("__"):
            assert issubclass(model, BaseModel), key
            assert part in model.model_fields, key
            model = model.model_fields[part].annotation


@pytest.mark.parametrize("name", OURS)
def test_the_settings_hold(name: str, settings_of: Callable[[str], Settings]) -> None:
    settings = settings_of(name)
    assert settings.bus.url.get_secret_value() == (
        f"amqp://dray:{SECRETS['BUS_PASSWORD']}@rabbitmq:5672/"
    )
    assert connect_bus(settings, name).durable
    assert listen_of(settings, name)[0] == "0.0.0.0"  # noqa: S104 - inside the network only


def test_only_gateways_know_the_catalog(settings_of: Callable[[str], Settings]) -> None:
    for name, spec in OURS.items():
        is_gateway = module_of(name) == "services.gateway"
        assert ("DRAY_CATALOG__URL" in spec["environment"]) == is_gateway
    assert settings_of("gateway-1").catalog == settings_of("gateway-2").catalog


@pytest.mark.parametrize("name", OURS)
def test_ports_are_those_that_the_service_listens_on(
    name: str, settings_of: Callable[[str], Settings]
) -> None:
    port = listen_of(settings_of(name), name)[1]
    assert port == int(
        getattr(Settings.model_validate({}), SECTIONS[module_of(name)]).listen.rpartition(":")[2]
    )
    assert STAGES[target_of(name)].all("EXPOSE") == [str(port)]
    assert [urlsplit(url).port for url in health_urls(name)] == [port, port]
    for published in OURS[name].get("ports", ()):
        host, _, inside = published.rpartition(":")
        assert int(inside) == port
        assert host.startswith("127.0.0.1:")


def test_no_port_is_published_twice_or_beyond_this_machine() -> None:
    published = [line for spec in SERVICES.values() for line in spec.get("ports", ())]
    outside = [line.rpartition(":")[0] for line in published]
    assert len(set(outside)) == len(outside)
    assert all(line.startswith("127.0.0.1:") for line in outside)


@pytest.mark.parametrize("name", OURS)
async def test_the_health_check_works_on_the_running_service(name: str, tmp_path: Path) -> None:
    module, section = module_of(name), SECTIONS[module_of(name)]
    address = f"127.0.0.1:{free_port()}"
    values: dict[str, Any] = {"data_dir": tmp_path, section: {"listen": address}}
    if section == "agent":
        values[section] |= {"system": "local", "mount": "unpack"}
    settings = Settings.model_validate(values)
    bus = EmbeddedBus(work_queues(settings.systems))
    service = importlib.import_module(f"{module}.app").build(settings, bus)
    paths = [urlsplit(url).path for url in health_urls(name)]
    assert paths == ["/livez", "/readyz"]
    try:
        await service.start(Deadline.after(20))
        for path in paths:
            assert (await _ask(f"http://{address}{path}")).returncode == 0
        nowhere = await _ask(f"http://{address}/nothing-is-here")
        assert nowhere.returncode == 1
        assert "404" in nowhere.stderr
    finally:
        await service.stop(Deadline.after(10))
    assert (await _ask(f"http://{address}{paths[0]}")).returncode == 1


async def _ask(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HEALTH), url]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=20, check=False
    )


def test_every_volume_and_mounted_file_exists() -> None:
    used = [volume for spec in SERVICES.values() for volume in volumes(spec)]
    for volume in used:
        if volume.source.startswith("."):
            assert (ROOT / volume.source).exists(), volume.source
            assert volume.read_only
    named = {volume.source for volume in used if not volume.is_path}
    assert named == set(COMPOSE["volumes"])


def test_services_meet_in_the_volumes_of_the_settings(
    settings_of: Callable[[str], Settings],
) -> None:
    settings = settings_of("converter")
    store, images = str(settings.store), str(settings.systems["local"].image_dir)
    data = str(settings_of("gateway-1").data_dir)
    writes = {
        (name, volume.source, volume.target, not volume.read_only)
        for name, spec in OURS.items()
        for volume in volumes(spec)
        if not volume.is_path
    }
    assert writes == {
        # Both gateways: the secret in it is one for both.
        ("gateway-1", "gateway", data, True),
        ("gateway-2", "gateway", data, True),
        ("gateway-1", "images", images, False),
        ("gateway-2", "images", images, False),
        ("converter", "store", store, True),
        ("distributor", "store", store, False),
        ("distributor", "images", images, True),
        ("agent", "images", images, False),
    }
    # A new volume belongs to whom the image's directory belongs to.
    made = shell_words(" ".join(STAGES["base"].all("RUN")))
    assert {"--owner=dray", store, images, data} <= set(made)


def test_only_the_agent_is_privileged() -> None:
    for name, spec in OURS.items():
        is_agent = module_of(name) == "services.node_agent"
        assert STAGES[target_of(name)].all("USER") == ([] if is_agent else ["dray"])
        assert spec.get("privileged", False) is is_agent
        assert (spec.get("cap_drop") == ["ALL"]) is not is_agent
        assert spec.get("read_only", False) is not is_agent


def test_the_command_line_finds_agent_and_gateways(
    settings_of: Callable[[str], Settings],
) -> None:
    settings = settings_of("agent")
    assert settings.agent_dir / "agent.sock" in SITE_SOCKETS
    urls = OURS["agent"]["environment"]["DRAY_URL"]
    GatewayClient(urls)  # it refuses what is no address
    for url in urls.split(","):
        assert urlsplit(url).port == listen_of(settings, urlsplit(url).hostname)[1]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_become_healthy(name: str) -> None:
    spec = SERVICES[name]
    assert spec["restart"] == "unless-stopped"
    assert spec["healthcheck"]["test"][0] == "CMD"
    assert int(spec["stop_grace_period"].removesuffix("s")) > STOP_SECONDS
    assert int(spec["healthcheck"]["start_period"].removesuffix("s")) >= START_SECONDS
    for other, how in spec.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


def test_passwords_are_asked_for_and_never_written_down() -> None:
    example = (ROOT / "deploy/docker/env.example").read_text()
    offered = dict(line.split("=", 1) for line in example.splitlines() if "=" in line)
    assert offered.keys() == compose_variables()
    assert not any(offered.values())
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_broker_outwaits_every_handler() -> None:
    limit = int(read_rabbitmq_conf()["consumer_timeout"]) / 1000
    week = 7 * 86400  # the longest that settings accept
    defaults = Settings.model_validate({})
    assert limit > week
    assert limit > defaults.converter.pull_timeout + defaults.distributor.placement_timeout


def test_the_broker_knows_the_user_of_the_url(settings_of: Callable[[str], Settings]) -> None:
    url = urlsplit(settings_of("converter").bus.url.get_secret_value())
    broker = SERVICES[url.hostname or ""]
    assert broker["environment"] == {
        "RABBITMQ_DEFAULT_USER": url.username,
        "RABBITMQ_DEFAULT_PASS": url.password,
    }
    assert broker["hostname"] == url.hostname
    assert any(volume.target == "/var/lib/rabbitmq" for volume in volumes(broker))


def test_the_catalog_is_the_replica_set_of_the_url(
    settings_of: Callable[[str], Settings],
) -> None:
    settings = settings_of("gateway-1")
    catalog_at(settings.catalog_url, timeout=1)
    url = urlsplit(settings.catalog_url)
    database = SERVICES[url.hostname or ""]
    (replica_set,) = parse_qs(url.query)["replicaSet"]
    folder = ROOT / "deploy/docker/mongo"
    started = shell_words((folder / "start.sh").read_text())
    assert started[started.index("--replSet") + 1] == replica_set
    key_file = started[started.index("--keyFile") + 1]
    assert database["tmpfs"] == [f"{Path(key_file).parent}:mode=0755"]
    initiated = (folder / "health.js").read_text()
    assert f'_id: "{replica_set}"' in initiated
    assert f'host: "{database["hostname"]}:{url.port}"' in initiated
    created = (folder / "user.js").read_text()
    assert f'user: "{url.username}"' in created
    assert f'getSiblingDB("{url.path.strip("/")}")' in created
    (secret,) = re.findall(r"process\.env\.(\w+)", created)
    assert database["environment"][secret] == url.password
    assert set(re.findall(r"process\.env\.(\w+)", initiated)) <= set(database["environment"])


def test_the_scripts_of_the_database_are_mounted_where_they_are_used() -> None:
    database = SERVICES["mongo"]
    mounted = {volume.target for volume in volumes(database)}
    assert set(database["entrypoint"][1:]) <= mounted
    assert database["healthcheck"]["test"][-1] in mounted
    assert "/docker-entrypoint-initdb.d/user.js" in mounted
    for script in (ROOT / "deploy/docker/mongo").glob("*.sh"):
        subprocess.run(["sh", "-n", str(script)], check=True)
