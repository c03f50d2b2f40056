"""The configuration that may lie beside a single-file checkpoint: what its tensors' shapes cannot tell.

    NAME.config.json beside NAME.safetensors, every part optional:
    {"unet": {"attention_head_dim": 4}, "vae": {...}, "text_encoder": {...}, "text_encoder_2": {...},
     "scheduler": {"_class_name": ..., "prediction_type": ...}, "tokenizer": "FOLDER", "tokenizer_2": "FOLDER"}

The folders are relative to it. (NAME.json itself is taken: other programs keep a user's notes there.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runtime.checkpoints.checkpoint import Tokenizer
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.reader import Reader
from runtime.files.located import Folder, SingleFile

_CONFIGS = ("unet", "vae", "text_encoder", "text_encoder_2", "scheduler")
_TOKENIZERS = ("tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Sidecar:
    """Configuration values by component (and `scheduler`), which win over all others, and the tokenizers."""

    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokenizers: dict[str, Tokenizer] = field(default_factory=dict)

    def config(self, component: str) -> dict[str, Any]:
        return self.configs.get(component, {})


def read_sidecar(file: SingleFile) -> Sidecar:
    """What lies beside a local file; nothing for one that was downloaded or sent. Raises CheckpointError."""
    if file.inside is None:
        return Sidecar()
    folder, name = Folder(file.stored.path.parent, file.inside), f"{file.stored.path.stem}.config.json"
    reader = Reader(folder)
    if not reader.has(name):
        return Sidecar()
    content = reader.json(name)
    for part, value in content.items():
        wanted = dict if part in _CONFIGS else str if part in _TOKENIZERS else None
        if wanted is None or not isinstance(value, wanted):
            raise CheckpointError(f"{name} has a {part[:100]} that means nothing there")
    return Sidecar(
        configs={part: content[part] for part in _CONFIGS if part in content},
        tokenizers={part: reader.tokenizer(content[part]) for part in _TOKENIZERS if part in content},
    )
