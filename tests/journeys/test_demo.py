"""`make demo`, as a newcomer types it. The export of the first run has a test of its own: it takes long."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from runtime.settings import ROOT


def make_demo(out: Path, *variables: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "demo", f"OUT={out}", *variables]
    environment = os.environ | {f"LORIKEET_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)


def test_the_demo_ends_with_a_picture_of_the_size_of_the_input(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((150, 101)).convert("RGB").save(tmp_path / "in.png")
    done = make_demo(tmp_path / "out", f"IMAGE={tmp_path / 'in.png'}", 'PROMPT=a "blue" house\'s door', engine="torch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Image.open(tmp_path / "out" / "demo.png").size == (150, 101)
    assert Image.open(tmp_path / "out" / "demo_before_after.png").size == (324, 135)
    for stage in ("prepare", "text_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish", "total"):
        assert re.search(rf"{stage}\s+│\s+\d+\.\d\d", done.stdout), stage


@pytest.mark.verify
def test_the_first_demo_exports_and_all_demos_run_in_openvino(tmp_path: Path) -> None:
    settings = {"store": str(tmp_path / "store"), "device": "cpu"}
    outputs = []
    for _ in range(2):
        done = make_demo(tmp_path / "out", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "engine openvino" in done.stdout and "lorikeet: " not in done.stdout
        outputs.append(done.stdout)
    assert ["unet: exported in" in output for output in outputs] == [True, False]


def test_a_wrong_input_is_one_clear_line(tmp_path: Path) -> None:
    done = make_demo(tmp_path, "IMAGE=/no/such.png", engine="torch")
    assert done.returncode != 0
    said = [line for line in done.stdout.splitlines() if line.startswith("lorikeet: ")]
    assert len(said) == 1 and "Traceback" not in done.stdout + done.stderr
