"""The Compose file: it follows the specification, opens no port to the world, and holds no secret."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from lorikeet.gateway.settings import PREFIX as GATEWAY_PREFIX
from lorikeet.gateway.settings import GatewaySettings, load_settings
from lorikeet.gateway.watched_servers import WatchedServer
from runtime.settings import PREFIX, ROOT, Settings

FOLDER = ROOT / "deploy"
TEXT = (FOLDER / "compose.yaml").read_text()
EXAMPLE = (FOLDER / "compose.env.example").read_text()
# `${NAME:-default}`, or `${NAME:?}` for a variable that must have a value
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+):(?:-([^}]*)|\?)\}")


def _interpolated(text: str = TEXT) -> str:
    """The file as Compose reads it, with `secret` for each variable without a default."""
    return _VARIABLE.sub(lambda match: "secret" if match[2] is None else match[2], text)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(_interpolated())["services"]
    return found


def test_it_follows_the_specification() -> None:
    compose = PyCompose.from_yaml(_interpolated())
    compose.validate()  # the networks that services name
    assert set(compose.service_names()) == {"triton", "gateway", "postgres", "s3"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read_only: true", "readonly: true"),
        ("condition: service_healthy", "condition: service_well"),
        ('["127.0.0.1:8080:8080"]', '["http:8080"]'),
        ("interval: 5s", "interval: soon"),
        ("networks: [back]", "networks: [nowhere]"),
    ],
)
def test_the_validator_finds_faults(right: str, wrong: str) -> None:
    assert right in TEXT
    with pytest.raises(ValueError):
        PyCompose.from_yaml(_interpolated(TEXT.replace(right, wrong))).validate()


def test_each_volume_is_declared_and_used(services: dict[str, dict[str, Any]]) -> None:
    volumes = [volume for service in services.values() for volume in service["volumes"]]
    named = {volume.split(":")[0] for volume in volumes if isinstance(volume, str)}
    assert named == yaml.safe_load(TEXT)["volumes"].keys()


def test_ports_are_open_on_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8080:8080"]
    assert not any("network_mode" in service or service.get("privileged") for service in services.values())


def test_secrets_come_from_the_environment_file(services: dict[str, dict[str, Any]]) -> None:
    required = {name for name, default in _VARIABLE.findall(TEXT) if f"${{{name}:?}}" in TEXT}
    assert required == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    assert all(f"\n{name}=\n" in EXAMPLE for name in required)
    named = set(re.findall(r"^(?:# )?([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE))
    assert named == {name for name, _ in _VARIABLE.findall(TEXT)}
    assert "/deploy/*.env" in (ROOT / ".gitignore").read_text()


def test_root_file_systems_are_read_only(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        assert service["read_only"] and "no-new-privileges:true" in service["security_opt"]


def test_conditions_name_services_with_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    needed = services["gateway"]["depends_on"]
    healthy = {name for name, need in needed.items() if need["condition"] == "service_healthy"}
    assert healthy == {name for name, service in services.items() if "healthcheck" in service}


def test_the_settings_exist(services: dict[str, dict[str, Any]]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert {name for name in services["triton"]["environment"] if name.startswith(PREFIX)} <= known
    known = {GATEWAY_PREFIX + name.upper() for name in GatewaySettings.model_fields}
    assert {name for name in services["gateway"]["environment"] if name.startswith(PREFIX)} <= known


def test_the_gateway_accepts_its_settings(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in services["gateway"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.is_shared and settings.watched_servers == [
        WatchedServer("triton:8001", "http://triton:8003", "http://triton:8002")
    ]


def test_the_folders_that_it_names_exist(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        if build := service.get("build"):
            assert (FOLDER / build["context"] / build["dockerfile"]).is_file()
    (models,) = [volume for volume in services["triton"]["volumes"] if isinstance(volume, dict)]
    assert (FOLDER / models["source"]).is_dir() and models["read_only"]
