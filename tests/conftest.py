"""What all tiers share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.export_command import Export, export
from tests.tiny import tiny_folder

# The tests use neither the settings nor the folders of whoever runs them: graphs there would change the engine.
for name in [name for name in os.environ if name.startswith("LORIKEET_") and name != "LORIKEET_TOOLS"]:
    del os.environ[name]
_FOLDERS = tempfile.mkdtemp(prefix="lorikeet-tests-")
atexit.register(shutil.rmtree, _FOLDERS, ignore_errors=True)
os.environ["LORIKEET_STORE"] = f"{_FOLDERS}/store"
os.environ["LORIKEET_GATEWAY_DATA"] = f"{_FOLDERS}/gateway"


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The tiny checkpoints and LoRAs, made once a machine."""
    return tiny_folder()


@pytest.fixture(scope="session")
def sd15_export(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The first export of the tiny SD 1.5. It takes a minute, so the tests share it: one that changes it has a copy."""
    return export(tiny / "sd15", tmp_path_factory.mktemp("sd15") / "artifacts")
