"""This machine, as plans name it."""

from __future__ import annotations

import torch

from runtime.artifacts.plan import Machine
from runtime.engines.tensorrt import flavour


def this_machine() -> Machine:
    """The installed TensorRT and the current GPU."""
    major, minor = torch.cuda.get_device_capability()
    return Machine(flavour.NAME, flavour.VERSION, torch.cuda.get_device_name(), f"{major}.{minor}")
