"""Reads the safety checker of Stable Diffusion 1.x from its weight file and configuration."""

from __future__ import annotations

from typing import Any

from runtime.checkpoints.checkpoint import Component, WeightFile
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.network_config import check_config
from runtime.checkpoints.read_image_encoder import vision_config
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import StoredFile

_CLASS = "StableDiffusionSafetyChecker"
_MARK = "special_care_embeds_weights"


def read_safety_checker(stored: StoredFile, config: dict[str, Any]) -> Component:
    """Raises CheckpointError: another network, or damaged."""
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and _CLASS not in architectures:
        raise CheckpointError(f"its config.json names another class: expected {_CLASS}")
    known = vision_config(config)
    check_config("safety_checker", known)
    weights = WeightFile(path=stored.path, digest=stored.digest, fingerprint=stored.fingerprint)
    found = Component(role="safety_checker", field="enable_safety_checker", config=known, files=(weights,))
    try:
        if _MARK not in found.shapes:
            raise CheckpointError(f"it is no safety checker of Stable Diffusion 1.x: its tensor {_MARK} is missing")
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    return found
