"""Settings: a file, the environment above it, overrides above both, and every mistake by name."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.config import CONFIG_FILE_VARIABLE, Settings, load_settings
from shared.errors import ConfigError
from shared.settings.types import this_platform

SITE_YAML = """
data_dir: /srv/dray
systems:
  cluster:
    image_dir: /lustre/images
    pack: {compression: gzip, level: 6}
registries:
  registry.example.org:5000: {insecure: true}
gateway: {listen: "0.0.0.0:80"}
pull: {lease: 30}
agent: {system: cluster}
"""
SITE_TOML = """
data_dir = "/srv/dray"
[systems.cluster]
image_dir = "/lustre/images"
pack = { compression = "gzip", level = 6 }
[registries."registry.example.org:5000"]
insecure = true
[gateway]
listen = "0.0.0.0:80"
[pull]
lease = 30
[agent]
system = "cluster"
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.upper().startswith("DRAY_"):
            monkeypatch.delenv(name)


def file_with(directory: Path, content: str | dict[str, Any], name: str = "dray.yaml") -> Path:
    path = directory / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def complaint(directory: Path, content: str | dict[str, Any], name: str = "dray.yaml") -> str:
    path = file_with(directory, content, name)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert str(path) in caught.value.message
    return caught.value.message


def test_without_a_file_they_describe_one_machine() -> None:
    settings = load_settings()
    assert settings.bus.url.get_secret_value() == "embedded:"
    assert settings.catalog_url == "sqlite:////var/lib/dray/catalog.db"
    assert settings.systems.keys() == {"local"}
    assert settings.systems["local"].image_dir == Path("/var/lib/dray/images")
    assert settings.systems["local"].platform == this_platform()
    assert settings.store == Path("/var/lib/dray/store")
    assert settings.agent_dir == Path("/var/lib/dray/agent")
    assert settings.gateway.listen == "127.0.0.1:7600"


def test_every_directory_follows_the_data_directory(tmp_path: Path) -> None:
    settings = load_settings(overrides={"data_dir": str(tmp_path)})
    assert settings.systems["local"].image_dir == tmp_path / "images"
    assert settings.store == tmp_path / "store"
    assert settings.agent_dir == tmp_path / "agent"
    assert settings.catalog_url == f"sqlite:///{tmp_path}/catalog.db"


@pytest.mark.parametrize(
    ("name", "content"),
    [("dray.yaml", SITE_YAML), ("dray.yml", SITE_YAML), ("dray.toml", SITE_TOML)],
)
def test_a_file_may_be_yaml_or_toml(tmp_path: Path, name: str, content: str) -> None:
    settings = load_settings(file_with(tmp_path, content, name))
    assert settings.systems.keys() == {"cluster"}
    assert settings.systems["cluster"].pack.compression == "gzip"
    assert settings.systems["cluster"].pack.level == 6
    assert settings.registries["registry.example.org:5000"].insecure
    assert settings.gateway.listen == "0.0.0.0:80"
    assert settings.pull.lease == 30
    assert settings.pull.max_tries == 5


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_settings(file_with(tmp_path, "")) == load_settings()


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, str(file_with(tmp_path, SITE_YAML)))
    assert load_settings().systems.keys() == {"cluster"}
    other = file_with(tmp_path, {"data_dir": "/elsewhere"}, "other.yaml")
    assert load_settings(other).data_dir == Path("/elsewhere")


def test_the_environment_stands_above_the_file_and_overrides_above_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_with(tmp_path, SITE_YAML)
    monkeypatch.setenv("DRAY_PULL__LEASE", "45")
    monkeypatch.setenv("DRAY_GATEWAY__LISTEN", "127.0.0.1:81")
    monkeypatch.setenv("DRAY_BUS__URL", "amqp://dray:secret@broker/")
    settings = load_settings(path, {"gateway": {"listen": "127.0.0.1:82"}})
    assert settings.pull.lease == 45
    assert settings.gateway.listen == "127.0.0.1:82"
    assert settings.bus.url.get_secret_value() == "amqp://dray:secret@broker/"
    assert settings.systems["cluster"].pack.level == 6


def test_a_variable_reaches_into_a_system_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAY_SYSTEMS__CLUSTER__PACK__LEVEL", "9")
    system = load_settings(file_with(tmp_path, SITE_YAML)).systems["cluster"]
    assert (system.pack.level, system.pack.compression) == (9, "gzip")


def test_structures_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAY_SYSTEMS", json.dumps({"a": {"image_dir": "/a"}}))
    monkeypatch.setenv("DRAY_DISTRIBUTOR__SYSTEMS", '["a"]')
    settings = load_settings()
    assert settings.systems["a"].image_dir == Path("/a")
    assert settings.distributor.systems == ("a",)


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("DRAY_SYSTEMS", "{", "systems"),
        ("DRAY_SYSTEMS__CLUSTER__PACK", "zstd", "systems.cluster.pack"),
        ("DRAY_DISTRIBUTOR__SYSTEMS", "cluster", "distributor.systems"),
        ("DRAY_PULL", "3", "pull"),
        ("DRAY_PULL__LEASE", "soon", "pull.lease"),
    ],
)
def test_a_wrong_variable_is_told_by_the_key_of_its_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, key: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"\n  {key}: "):
        load_settings()


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAY_GATEWAY__LISTEN", "")
    assert load_settings().gateway.listen == "127.0.0.1:7600"


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAY_URL", "http://127.0.0.1:7600")  # the command line's
    assert load_settings() == Settings.model_validate({})


def test_a_misspelt_variable_within_a_section_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAY_BUS__ULR", "amqp://broker/")
    with pytest.raises(ConfigError, match=r"the environment.*\n  bus\.ulr: there is no such"):
        load_settings()


def test_all_mistakes_are_told_at_once_each_by_its_key(tmp_path: Path) -> None:
    mistakes = {
        "systems": {"cluster": {"image_dir": "/i", "pack": {"compression": "bzip2"}}},
        "registries": {"r.example.org": {"username": ["ada"]}},
        "gateway": {"listen": "7600"},
        "pull": {"lease": -1, "max_tries": 0},
        "converter": {"slots": "many", "colour": "blue"},
        "agent": {"mount": "magic"},
        "log": {"level": "loud"},
        "extra": 1,
    }
    lines = complaint(tmp_path, mistakes).splitlines()
    assert {line.strip().partition(": ")[0] for line in lines[1:]} == {
        "systems.cluster.pack.compression",
        "registries.r.example.org.username",
        "gateway.listen",
        "pull.lease",
        "pull.max_tries",
        "converter.slots",
        "converter.colour",
        "agent.mount",
        "log.level",
        "extra",
    }


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _keys(kind, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


@pytest.mark.parametrize("key", _keys(Settings))
def test_a_wrong_value_anywhere_is_told_by_its_key(tmp_path: Path, key: str) -> None:
    *sections, name = key.split(".")
    content: dict[str, Any] = {name: {"this": {"fits": "nowhere"}}}
    for section in reversed(sections):
        content = {section: content}
    assert f"\n  {key}" in complaint(tmp_path, content)


@pytest.mark.parametrize("section", Settings.model_fields)
def test_a_section_that_is_none_is_told_by_its_key(tmp_path: Path, section: str) -> None:
    assert f"\n  {section}: " in complaint(tmp_path, {section: True})


def test_a_system_that_does_not_exist_is_told_with_its_key(tmp_path: Path) -> None:
    systems = {"cluster": {"image_dir": "/i"}}
    said = complaint(tmp_path, {"systems": systems, "agent": {"system": "clustre"}})
    assert "agent.system: there is no system 'clustre'" in said
    said = complaint(tmp_path, {"systems": systems, "distributor": {"systems": ["other"]}})
    assert "distributor.systems.other: there is no system 'other'" in said


def test_two_systems_never_share_a_directory(tmp_path: Path) -> None:
    """What one of them removes, the other may still stand for."""
    systems = {"one": {"image_dir": "/i/a"}, "two": {"image_dir": "/i/b/../a/"}}
    said = complaint(tmp_path, {"systems": systems})
    assert "systems.two.image_dir: /i/a is that of 'one' already" in said


def test_a_site_without_a_system_local_needs_no_agent_section(tmp_path: Path) -> None:
    settings = load_settings(file_with(tmp_path, {"systems": {"c": {"image_dir": "/i"}}}))
    assert settings.systems.keys() == {"c"}


def test_a_site_needs_a_system(tmp_path: Path) -> None:
    assert "\n  systems: " in complaint(tmp_path, {"systems": {}})


@pytest.mark.parametrize("name", ["Cluster", "a.b", "a/b", "", "../etc", "x" * 64])
def test_a_systems_name_can_be_no_path_and_no_routing_key(tmp_path: Path, name: str) -> None:
    assert f"\n  systems.{name}" in complaint(tmp_path, {"systems": {name: {"image_dir": "/i"}}})


@pytest.mark.parametrize("listen", ["7600", ":7600", "localhost", "localhost:http", "h:65536"])
def test_an_address_shows_how_it_is_written(tmp_path: Path, listen: str) -> None:
    said = complaint(tmp_path, {"gateway": {"listen": listen}})
    assert "gateway.listen: write HOST:PORT, for example 127.0.0.1:7600" in said


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:7600", "0.0.0.0:65535", "login1:80"])
def test_addresses_of_every_family_are_taken(tmp_path: Path, listen: str) -> None:
    settings = load_settings(file_with(tmp_path, {"gateway": {"listen": listen}}))
    assert settings.gateway.listen == listen


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml: No such file"):
        load_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("dray.yaml", "a: [", "cannot be parsed"),
        ("dray.toml", "a = ", "cannot be parsed"),
        ("dray.yaml", "a: 2026-02-30", "cannot be parsed"),
        ("dray.yaml", "a: !!bool x", "cannot be parsed"),
        ("dray.yaml", "- a\n- b\n", "must hold a mapping"),
        ("dray.yaml", "7600", "must hold a mapping"),
        ("dray.yaml", "1: one\n", "must hold a mapping"),
        ("dray.yaml", "a: !!python/object/apply:os.getcwd []", "cannot be parsed"),
    ],
)
def test_a_file_that_holds_no_settings_is_named(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    assert said in complaint(tmp_path, content, name)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dray.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_settings(path)


def test_no_message_and_no_representation_shows_a_password(tmp_path: Path) -> None:
    secret = "hunter2"
    url = f"amqp://dray:{secret}@broker/"
    settings = load_settings(file_with(tmp_path, {"bus": {"url": url}, "catalog": {"url": url}}))
    assert secret not in repr(settings)
    assert secret not in settings.model_dump_json()
    said = complaint(tmp_path, {"bus": {"url": [url]}, "gateway": {"listen": url + ":x"}})
    assert secret not in said


@given(
    st.dictionaries(
        st.from_regex(r"x\S{0,10}", fullmatch=True),
        st.none() | st.integers() | st.text(),
        min_size=1,
    )
)
def test_nothing_unknown_is_taken_and_nothing_crashes(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(overrides=content)
    for key in content:
        assert f"\n  {key}: there is no such setting" in caught.value.message
