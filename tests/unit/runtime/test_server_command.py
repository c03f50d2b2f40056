"""The command line of tritonserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.settings import Settings
from runtime.supervisor.command import Ports, StagePathError, server_command


@pytest.fixture
def command_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return _options(tmp_path, monkeypatch)


def _options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    program = folder / "triton" / "bin" / "tritonserver"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch()
    monkeypatch.setenv("LORIKEET_TOOLS", str(folder))
    command = server_command(Settings(), Ports(1, 2, 3), "memory-")
    assert command[0] == str(program)
    assert "--backend-config=python,shm-region-prefix-name=memory-" in command
    return dict(option[2:].split("=", 1) for option in command[1:] if "=" in option)


def test_ports_and_address_are_those_given(command_options: dict[str, str]) -> None:
    assert [command_options[f"{kind}-port"] for kind in ("http", "grpc", "metrics")] == ["1", "2", "3"]
    assert {command_options[f"{kind}-address"] for kind in ("http", "grpc", "metrics")} == {"127.0.0.1"}


def test_apis_that_read_memory_or_change_the_server_need_a_secret(command_options: dict[str, str]) -> None:
    for option in ("http-restricted-api", "grpc-restricted-protocol"):
        apis, header = command_options[option].split(":")
        assert set(apis.split(",")) == {"shared-memory", "model-repository", "trace", "logging"}
        name, secret = header.split("=")
        assert name == "lorikeet-secret" and len(secret) == 32


def test_each_start_has_another_secret(
    command_options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = _options(tmp_path, monkeypatch)
    assert again["http-restricted-api"] != command_options["http-restricted-api"]


def test_triton_may_be_in_a_folder_of_another_alphabet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "möbel_青"
    assert _options(folder, monkeypatch)["backend-directory"] == str(folder / "triton" / "backends")


@pytest.mark.parametrize("name", ["a b", "a'b", "$HOME", "a;b", "(a)", "青 b"])
def test_a_path_that_the_shell_would_split_is_an_error_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with pytest.raises(StagePathError, match=r"^Triton is in .*/triton/backends: .* spaces or quotes; move it"):
        _options(tmp_path / name, monkeypatch)
    monkeypatch.setattr("runtime.supervisor.command.ROOT", tmp_path / name.replace("青", ""))
    with pytest.raises(StagePathError, match=r"^the repository is in .* spaces or quotes; move it"):
        _options(tmp_path, monkeypatch)


@pytest.mark.parametrize(("where", "what"), [("ROOT", "the repository"), ("sys.prefix", "the Python environment")])
def test_a_path_from_which_triton_cannot_import_is_an_error_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, what: str
) -> None:
    path = tmp_path / "möbel"
    monkeypatch.setattr(f"runtime.supervisor.command.{where}", path if where == "ROOT" else str(path))
    with pytest.raises(StagePathError, match=f"^{what} is in {path}: .* ASCII paths only; move it"):
        _options(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("version", "limit"),
    [("2.51.0", None), ("2.58.0", None), ("2.59.1\n", "2147483647"), ("2.75.0", "2147483647"), ("odd", None)],
)
def test_http_takes_as_much_as_grpc_where_triton_limits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, limit: str | None
) -> None:
    """Triton's own limit of 64 MiB is less than FILES with a LoRA may have. Older versions refuse the option."""
    assert "http-max-input-size" not in _options(tmp_path, monkeypatch)
    (tmp_path / "triton" / "TRITON_VERSION").write_text(version)
    assert _options(tmp_path, monkeypatch).get("http-max-input-size") == limit
