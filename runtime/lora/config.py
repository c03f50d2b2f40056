"""The LoraConfig values of PEFT that diffusers writes into a file's metadata, `unet.lora_alpha` and the like."""

from __future__ import annotations

import json
from typing import Any

from runtime.lora.errors import LoraError
from runtime.lora.keys import Target

_MAX_ALPHA = 1e30
_METADATA_KEY = "lora_adapter_metadata"


class LoraConfig:
    """Raises LoraError for metadata that is no such record."""

    def __init__(self, metadata: dict[str, str]) -> None:
        text = metadata.get(_METADATA_KEY)
        try:
            self._values: dict[str, Any] = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:
            raise LoraError(f"its metadata {_METADATA_KEY} is not JSON") from error
        if not isinstance(self._values, dict):
            raise LoraError(f"its metadata {_METADATA_KEY} is not a JSON object")

    def alpha(self, target: Target) -> float | None:
        """The layer's lora_alpha; a pattern names a layer by its module name or the end of it, as in PEFT."""
        patterns = self._values.get(f"{target.component}.alpha_pattern")
        for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
            if target.module == pattern or target.module.endswith(f".{pattern}"):
                return _number(alpha)
        alpha = self._values.get(f"{target.component}.lora_alpha")
        return None if alpha is None else _number(alpha)

    def rank_stabilized(self, target: Target) -> bool:
        return self._values.get(f"{target.component}.use_rslora") is True


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_ALPHA:
        raise LoraError(f"its metadata {_METADATA_KEY} has a lora_alpha that is no number")
    return float(value)
