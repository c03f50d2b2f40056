"""What all tiers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_folder


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The tiny checkpoints and LoRAs, made once a machine."""
    return tiny_folder()
