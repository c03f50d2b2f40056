"""`make demo`, as a newcomer types it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from PIL import Image

from runtime.settings import ROOT


def make_demo(out: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "demo", f"OUT={out}", *variables]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_demo_ends_with_a_picture_of_the_size_of_the_input(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((150, 101)).convert("RGB").save(tmp_path / "in.png")
    done = make_demo(tmp_path / "out", f"IMAGE={tmp_path / 'in.png'}", 'PROMPT=a "blue" house\'s door')
    assert done.returncode == 0, done.stdout + done.stderr
    assert Image.open(tmp_path / "out" / "demo.png").size == (150, 101)
    assert Image.open(tmp_path / "out" / "demo_before_after.png").size == (324, 135)
    for stage in ("prepare", "text_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish", "total"):
        assert re.search(rf"{stage}\s+│\s+\d+\.\d\d", done.stdout), stage


def test_a_wrong_input_is_one_clear_line(tmp_path: Path) -> None:
    done = make_demo(tmp_path, "IMAGE=/no/such.png")
    assert done.returncode != 0
    said = [line for line in done.stdout.splitlines() if line.startswith("lorikeet: ")]
    assert len(said) == 1 and "Traceback" not in done.stdout + done.stderr
