"""The site's settings: one YAML or TOML file for all services, overridden by the environment.

`DRAY_BUS__URL` overrides `bus.url`, and so on. Every mistake is reported by the name of its key,
all at once. Without a file the settings describe one machine: embedded bus, SQLite, one system.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from shared.errors import ConfigError
from shared.models import Strict, SystemName
from shared.settings.agent import AgentSettings
from shared.settings.gateway import GatewaySettings, PullSettings
from shared.settings.inside import InsideSettings
from shared.settings.jobs import JobSettings
from shared.settings.lifecycle import AdmissionSettings, ImportSettings, QuotaSettings
from shared.settings.site import (
    BusSettings,
    CatalogSettings,
    LogSettings,
    RegistrySettings,
    SystemSettings,
)
from shared.settings.tracing import TracingSettings
from shared.settings.usage import UsageSettings
from shared.settings.workers import (
    ConverterSettings,
    DistributorSettings,
    HousekeepingSettings,
)
from shared.yaml_errors import YAML_ERRORS

CONFIG_FILE_VARIABLE = "DRAY_CONFIG"
OTHER_VARIABLES = (
    *("URL", "SOCKET", "TOKEN", "TOKEN_FILE", "MUNGE_SOCKET", "UDIROOT_CONF"),
    *("IMAGE", "IMAGE_ID", "IMAGES", "PULLS", "SYSTEM", "VOLUMES", "VOLUME_PATHS", "MODULES"),
)
"""Variables of the commands `dray` and `shifterimg`, and of jobs, which are no settings."""


class Settings(Strict):
    """Everything a site can set."""

    data_dir: Path = Path("/var/lib/dray")
    store_dir: Path | None = None
    """Packs; shared by converters and distributors. Default `store` in data_dir."""
    systems: Annotated[dict[SystemName, SystemSettings], Field(min_length=1)]
    registries: dict[str, RegistrySettings] = Field(default_factory=dict)
    bus: BusSettings = BusSettings()
    catalog: CatalogSettings = CatalogSettings()
    pull: PullSettings = PullSettings()
    quotas: QuotaSettings = QuotaSettings()
    admission: AdmissionSettings = AdmissionSettings()
    imports: ImportSettings = ImportSettings()
    gateway: GatewaySettings = GatewaySettings()
    jobs: JobSettings = JobSettings()
    usage: UsageSettings = UsageSettings()
    converter: ConverterSettings = ConverterSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    distributor: DistributorSettings = DistributorSettings()
    agent: AgentSettings = Field(default_factory=AgentSettings)
    inside: InsideSettings = InsideSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="before")
    @classmethod
    def _one_machine(cls, values: Any) -> Any:
        if isinstance(values, dict) and "systems" not in values:
            given = values.get("data_dir")
            # What is no path is reported with its own key, a little later.
            data_dir = (
                given if isinstance(given, str | Path) else cls.model_fields["data_dir"].default
            )
            return {**values, "systems": {"local": {"image_dir": Path(data_dir) / "images"}}}
        return values

    @model_validator(mode="after")
    def _known_systems(self) -> Self:
        named = {"agent.system": self.agent.system}
        named |= {f"distributor.systems.{name}": name for name in self.distributor.systems}
        if "agent" not in self.model_fields_set:
            named.pop("agent.system")
        for key, name in named.items():
            if name not in self.systems:
                message = f"{key}: there is no system '{name}' in systems"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _own_directories(self) -> Self:
        """Whether an image may be removed is asked of the records of one system."""
        owners: dict[str, str] = {}
        for name, system in self.systems.items():
            directory = os.path.normpath(system.image_dir)
            other = owners.setdefault(directory, name)
            if other != name:
                message = (
                    f"systems.{name}.image_dir: {directory} is that of '{other}' already, and each "
                    "system needs its own"
                )
                raise ValueError(message)
        return self

    @property
    def store(self) -> Path:
        return self.store_dir or self.data_dir / "store"

    @property
    def agent_dir(self) -> Path:
        return self.agent.run_dir or self.data_dir / "agent"

    @property
    def gateway_socket(self) -> Path:
        return self.gateway.socket or self.data_dir / "gateway.sock"

    @property
    def catalog_url(self) -> str:
        url = self.catalog.url.get_secret_value()
        return f"sqlite:///{self.data_dir}/catalog.db" if url == "sqlite:" else url


class _Environment(Settings, BaseSettings):
    """The same fields, for the reader of environment variables."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)


class _Variables(EnvSettingsSource):
    """What should be JSON and is not is passed on: the validation names its key."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def load_settings(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the file (or the one that DRAY_CONFIG names), the environment, then `overrides`."""
    if path is None and (named := os.environ.get(CONFIG_FILE_VARIABLE)):
        path = Path(named)
    _check_variables(os.environ)
    content = _read_file(path) if path else {}
    environment = _Variables(
        _Environment, env_prefix="DRAY_", env_nested_delimiter="__", env_ignore_empty=True
    )
    try:
        return Settings.model_validate(_merge(_merge(content, environment()), overrides or {}))
    except ValidationError as exc:
        raise ConfigError(_explain(exc, path)) from exc


def _check_variables(environment: Mapping[str, str]) -> None:
    """A misspelt variable would otherwise be a setting that silently does nothing."""
    known = {"CONFIG", *OTHER_VARIABLES, *(name.upper() for name in Settings.model_fields)}
    strange = [
        name
        for name in environment
        if name.startswith("DRAY_")
        and not name.startswith("DRAY_TEST_")
        and name.removeprefix("DRAY_").partition("__")[0].upper() not in known
    ]
    if strange:
        raise ConfigError(
            f"there is no such setting: {', '.join(sorted(strange))} in the environment; "
            f"the sections are {', '.join(sorted(Settings.model_fields))}"
        )


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = _merge(inner, value)  # noqa: PLW2901
        merged[key] = value
    return merged


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot read the settings file {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text") from exc
    try:
        content = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, *YAML_ERRORS) as exc:
        raise ConfigError(f"{path} cannot be parsed: {exc}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path} must hold a mapping of settings, such as 'data_dir: /srv/dray'")
    return content


def _explain(exc: ValidationError, path: Path | None) -> str:
    source = str(path) if path else "the environment"
    lines = [f"the settings from {source} cannot be used:"]
    for problem in exc.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting"
        lines.append(f"  {key}: {message}" if key else f"  {message}")
    return "\n".join(lines)
