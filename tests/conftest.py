"""What all tiers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tiny import tiny_folder

# The settings of whoever runs the tests are not the tests'.
for name in [name for name in os.environ if name.startswith("LORIKEET_") and name != "LORIKEET_TOOLS"]:
    del os.environ[name]


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The tiny checkpoints and LoRAs, made once a machine."""
    return tiny_folder()
