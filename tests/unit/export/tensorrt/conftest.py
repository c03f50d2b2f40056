"""What the tests of TensorRT share: the emulator in the place of TensorRT-RTX."""

from __future__ import annotations

import pytest

from runtime.engines.tensorrt import flavour
from tests.unit.export.tensorrt.emulator import Emulator


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    found = Emulator()
    monkeypatch.setattr(flavour, "trt", found)
    monkeypatch.setattr(flavour, "IS_RTX", True)
    return found
