"""API keys, as an operator makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def add_key(data: Path, name: str) -> str:
    """`lorikeet keys add` over a gateway's data folder. Returns the credentials."""
    done = subprocess.run(
        [sys.executable, "-m", "lorikeet", "keys", "add", name],
        env=os.environ | {"LORIKEET_GATEWAY_DATA": str(data)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
