"""Settings: a wrong value is an error at start that names the variable."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from runtime.settings import Settings, SettingsError, job_table_path, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("LORIKEET_")]:
        monkeypatch.delenv(name)


def test_nothing_has_to_be_set() -> None:
    assert load_settings().http_port == 8000


def test_the_artifacts_are_next_to_the_store_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORIKEET_STORE", str(tmp_path / "store"))
    assert load_settings().artifacts_folder == tmp_path / "store-artifacts"
    monkeypatch.setenv("LORIKEET_ARTIFACTS", str(tmp_path / "own"))
    assert load_settings().artifacts_folder == tmp_path / "own"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HTTP_PORT", "9000", 9000),
        ("WEIGHTS_BYTES", "5GiB", 5 << 30),
        ("STORE_BYTES", "1.5 KB", 1500),
        ("MAX_IMAGE_BYTES", "1024", 1024),
        ("PRECISION", "bfloat16", "bfloat16"),
        ("ENGINE", "tensorrt", "tensorrt"),
        ("UNVERIFIED_PLANS", "true", True),
        ("STATIC_SHAPES", "512x512, 768x512,", ("512x512", "768x512")),
        ("CALLS_PER_TURN", "0", 0),
        ("VAE_TILE_ABOVE", "256", 256),
        ("FETCH_ALLOW", "Models.Local:8443, 10.0.0.7,", ("models.local:8443", "10.0.0.7")),
        ("LOCAL_PATHS", "", ()),
        ("HOST", "0.0.0.0", "0.0.0.0"),
        ("HOST", "localhost", "localhost"),
        ("HOST", "::1", "::1"),
    ],
)
def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(f"LORIKEET_{name}", text)
    assert getattr(load_settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HTTP_PORT", "65536"),
        ("HTTP_PORT", "-1"),
        ("GRPC_PORT", "http"),
        ("VAE_TILE_ABOVE", "255"),
        ("HOST", "example.com"),
        ("ENGINE", "onnx"),
        ("UNVERIFIED_PLANS", "maybe"),
        ("DEVICE", "gpu"),
        ("PRECISION", "fp16"),
        ("THREADS", "-1"),
        ("THREADS", ""),
        ("WEIGHTS_BYTES", "much"),
        ("STATIC_SHAPES", "512"),
        ("STATIC_SHAPES", "510x512"),
        ("STORE_BYTES", "-5GB"),
        ("CALLS_PER_TURN", "-1"),
        ("BLOCK_ROWS", "-2"),
        ("LOCAL_PATHS", "/no/such/folder"),
        ("FETCH_SECONDS", "0"),
        ("MAX_PIXELS", "0"),
        ("MAX_IN_FLIGHT", "513"),
        ("STALL_SECONDS", "1.5"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"LORIKEET_{name}", text)
    with pytest.raises(SettingsError, match=f"^LORIKEET_{name}: "):
        load_settings()


def test_every_wrong_value_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIKEET_ENGINE", "onnx")
    monkeypatch.setenv("LORIKEET_DEVICE", "gpu")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["LORIKEET_ENGINE", "LORIKEET_DEVICE"]


@pytest.mark.parametrize(
    ("name", "meant"), [("HTP_PORT", "HTTP_PORT"), ("MAX_INFLIGHT", "MAX_IN_FLIGHT"), ("http_port", "HTTP_PORT")]
)
def test_a_misspelt_name_is_an_error_with_the_right_one(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(f"LORIKEET_{name}", "8000")
    with pytest.raises(SettingsError, match=f"LORIKEET_{name}: .*did you mean LORIKEET_{meant}\\?"):
        load_settings()


def test_a_name_like_no_setting_is_an_error_without_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIKEET_ZZ", "1")
    with pytest.raises(SettingsError, match=re.escape("LORIKEET_ZZ: no such setting") + "$"):
        load_settings()


@pytest.mark.parametrize("name", ["JOB_TABLE", "TOOLS", "GATEWAY_PORT"])
def test_internal_variables_and_those_of_the_gateway_are_accepted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"LORIKEET_{name}", "/somewhere")
    load_settings()


def test_local_paths_are_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("LORIKEET_LOCAL_PATHS", f"{tmp_path}/link:{tmp_path}/real/..")
    assert load_settings().local_paths == (tmp_path / "real", tmp_path)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LORIKEET_STORE", "~/files")
    monkeypatch.setenv("LORIKEET_LOCAL_PATHS", "~")
    found = load_settings()
    assert (found.store, found.local_paths) == (tmp_path / "files", (tmp_path,))


@pytest.mark.parametrize("name", ["METRICS_PORT", "STATUS_PORT"])
def test_equal_ports_are_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"LORIKEET_{name}", "8001")
    with pytest.raises(SettingsError, match=r"LORIKEET_\*: .*must differ"):
        load_settings()


def test_several_ports_may_be_zero() -> None:
    assert Settings(http_port=0, grpc_port=0, metrics_port=0).grpc_port == 0


def test_job_table_path_is_the_variable_or_one_for_each_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(os.getuid()) in job_table_path().name
    monkeypatch.setenv("LORIKEET_JOB_TABLE", str(tmp_path / "job_table"))
    assert job_table_path() == tmp_path / "job_table"


@pytest.mark.parametrize("name", ["möbel", "青禅 ZEN", "a b", "🦜", "'quoted' \"$HOME\""])
def test_a_folder_may_have_any_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """test_local_path.py uses such folders in an ASCII locale, which Triton's stubs have."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "tokens.json").write_text("{}")
    (folder / "tokens.json").chmod(0o600)
    for variable, value in {"LOCAL_PATHS": folder, "STORE": folder / "store", "TOKENS": folder / "tokens.json"}.items():
        monkeypatch.setenv(f"LORIKEET_{variable}", str(value))
    found = load_settings()
    assert (found.local_paths, found.store, found.tokens) == ((folder,), folder / "store", folder / "tokens.json")
