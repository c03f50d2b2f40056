"""PEFT's LoraConfig values (`unet.lora_alpha`, ...) that diffusers writes into a LoRA file's metadata."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any

from lorikeet.protocol.shorten import shorten
from runtime.lora.layer_names import Target
from runtime.lora.lora_error import LoraError

_MAX_ALPHA = 1e30
_MAX_DEPTH = 32  # names in a module path that a pattern is compared with
_MAX_TEXT = 1 << 20  # characters; diffusers writes about 200,000 for a LoRA that names every layer of SDXL
_METADATA_KEY = "lora_adapter_metadata"


class PeftMetadata:
    """The metadata of one file. Raises LoraError when `lora_adapter_metadata` is too long or not a JSON object."""

    def __init__(self, metadata: dict[str, str]) -> None:
        text = metadata.get(_METADATA_KEY)
        if text and len(text) > _MAX_TEXT:
            raise _invalid(f"has {len(text)} characters; expected at most {_MAX_TEXT}")
        try:
            self._values: dict[str, Any] = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:
            raise _invalid("is not valid JSON; expected a JSON object as diffusers writes it") from error
        if not isinstance(self._values, dict):
            raise _invalid("is not a JSON object; expected one as diffusers writes it")
        self._patterns = {name: _numbered(value) for name, value in self._values.items() if isinstance(value, dict)}

    def alpha(self, target: Target) -> float | None:
        """The layer's lora_alpha, or None. Raises LoraError when it is not a finite number.

        As in PEFT, a pattern matches a layer whose module path equals it or ends in it, and the first match counts.
        """
        key = f"{target.component}.alpha_pattern"
        if patterns := self._patterns.get(key):
            names = target.module.split(".")
            # Look up the module path's ends: comparing every pattern with every layer can take minutes.
            ends = (".".join(names[-count:]) for count in range(1, min(len(names), _MAX_DEPTH) + 1))
            if found := [patterns[end] for end in ends if end in patterns]:
                return _number(min(found, key=itemgetter(0))[1], key)
        key = f"{target.component}.lora_alpha"
        alpha = self._values.get(key)
        return None if alpha is None else _number(alpha, key)

    def rank_stabilized(self, target: Target) -> bool:
        """Whether alpha is divided by sqrt(rank) (`use_rslora`)."""
        return self._values.get(f"{target.component}.use_rslora") is True


def _numbered(patterns: dict[str, Any]) -> dict[str, tuple[int, Any]]:
    """Pattern -> (its position in the file, its alpha)."""
    return {pattern: (position, alpha) for position, (pattern, alpha) in enumerate(patterns.items())}


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_ALPHA:
        raise _invalid(f"has an invalid alpha in {shorten(key)}; expected a number below {_MAX_ALPHA:g}")
    return float(value)


def _invalid(problem: str) -> LoraError:
    return LoraError(f"the LoRA file's metadata entry {_METADATA_KEY} {problem}")
