"""The LoraConfig values of PEFT that diffusers writes into a file's metadata, `unet.lora_alpha` and the like."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any

from runtime.lora.keys import Target
from runtime.lora.lora_error import LoraError

_MAX_ALPHA = 1e30
_MAX_NAMES = 32  # modules within modules
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
        self._patterns = {name: _places(value) for name, value in self._values.items() if isinstance(value, dict)}

    def alpha(self, target: Target) -> float | None:
        """The layer's lora_alpha; a pattern names a layer by its module name or the end of it, as in PEFT."""
        if patterns := self._patterns.get(f"{target.component}.alpha_pattern"):
            names = target.module.split(".")
            ends = (".".join(names[-count:]) for count in range(1, min(len(names), _MAX_NAMES) + 1))
            if found := [patterns[end] for end in ends if end in patterns]:
                return _number(min(found, key=itemgetter(0))[1])
        alpha = self._values.get(f"{target.component}.lora_alpha")
        return None if alpha is None else _number(alpha)

    def rank_stabilized(self, target: Target) -> bool:
        return self._values.get(f"{target.component}.use_rslora") is True


def _places(patterns: dict[str, Any]) -> dict[str, tuple[int, Any]]:
    """Pattern -> its place among all, of which the first that fits counts, and its alpha."""
    return {pattern: (place, alpha) for place, (pattern, alpha) in enumerate(patterns.items())}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_ALPHA:
        raise LoraError(f"its metadata {_METADATA_KEY} has a lora_alpha that is no number")
    return float(value)
