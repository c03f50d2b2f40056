"""The Dockerfiles: hadolint finds nothing, and what they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.settings import ROOT

SERVER, GATEWAY = ROOT / "deploy" / "Dockerfile", ROOT / "deploy" / "gateway.Dockerfile"
LOCK = (ROOT / "requirements.lock").read_text()


def _hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run(
        [program, "--failure-threshold", "info", file], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("file", [SERVER, GATEWAY], ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    done = _hadolint(file)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_faults(tmp_path: Path) -> None:
    faulty = tmp_path / "Dockerfile"
    faulty.write_text("FROM python:latest\nRUN pip install numpy\nCMD lorikeet\n")
    assert _hadolint(faulty).returncode == 1


@pytest.mark.parametrize("file", [SERVER, GATEWAY], ids=lambda file: file.name)
def test_the_image_runs_without_root_and_has_a_health_check(file: Path) -> None:
    last_stage = file.read_text().rsplit("\nFROM ", 1)[1]
    assert re.findall(r"^USER (.*)$", last_stage, re.MULTILINE) == ["1000:1000"]
    assert "\nHEALTHCHECK " in last_stage and "\nSTOPSIGNAL SIGTERM\n" in last_stage


@pytest.mark.parametrize("file", [SERVER, GATEWAY], ids=lambda file: file.name)
def test_what_the_image_copies_is_in_the_build_context(file: Path) -> None:
    kept = [line[1:] for line in _ignore_lines(file) if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(\S+) ", file.read_text(), re.MULTILINE)
    assert set(copied) <= {*kept, "."}
    assert all((ROOT / name).exists() for name in kept)


def test_no_secret_gets_into_the_build_context() -> None:
    assert _ignore_lines(SERVER)[1] == "*" and "deploy/*.env" in _ignore_lines(SERVER)


def test_torch_and_numpy_fit_the_lock() -> None:
    """The server's image takes the lock's torch, and another numpy than the lock: 1.26 is for Triton 24.10 alone."""
    text = SERVER.read_text()
    (torch,) = re.findall(r"\btorch==(\S+)", text)
    assert f"\ntorch=={torch}\n" in LOCK
    (numpy,) = re.findall(r"^ARG NUMPY=2\.\d+\.\d+$", text, re.MULTILINE)
    assert numpy and "\nnumpy==1.26.4\n" in LOCK


def _ignore_lines(file: Path) -> list[str]:
    return file.with_name(f"{file.name}.dockerignore").read_text().splitlines()
