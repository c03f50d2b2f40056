"""The optional configuration file next to a single-file checkpoint, for values that shapes cannot give.

    NAME.config.json next to NAME.safetensors; every field is optional:
    {"unet": {"attention_head_dim": 4}, "vae": {...}, "text_encoder": {...}, "text_encoder_2": {...},
     "scheduler": {"_class_name": ..., "prediction_type": ...}, "tokenizer": "FOLDER", "tokenizer_2": "FOLDER"}
A ControlNet's has the field "controlnet".

The folders are relative to the file. (Other programs use NAME.json for the notes of a user.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.checkpoint import Tokenizer
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.folder_reader import FolderReader
from runtime.files.located import Folder, SingleFile

_CONFIGS = ("unet", "vae", "text_encoder", "text_encoder_2", "scheduler", "controlnet")
_TOKENIZERS = ("tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Sidecar:
    """Configuration values by component (and `scheduler`), which override all others, and the tokenizers."""

    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokenizers: dict[str, Tokenizer] = field(default_factory=dict)

    def config(self, component: str) -> dict[str, Any]:
        return self.configs.get(component, {})


def read_sidecar(file: SingleFile) -> Sidecar:
    """The sidecar of a local file; an empty one for a file that was downloaded or sent. Raises CheckpointError."""
    if file.inside is None:
        return Sidecar()
    folder, name = Folder(file.stored.path.parent, file.inside), f"{file.stored.path.stem}.config.json"
    reader = FolderReader(folder)
    if not reader.has(name):
        return Sidecar()
    content = reader.json(name)
    for part, value in content.items():
        wanted = dict if part in _CONFIGS else str if part in _TOKENIZERS else None
        if wanted is None or not isinstance(value, wanted):
            raise CheckpointError(f"{name}: {shorten(part, 100)} is an unknown field or has a value of the wrong type")
    return Sidecar(
        configs={part: content[part] for part in _CONFIGS if part in content},
        tokenizers={part: reader.tokenizer(content[part]) for part in _TOKENIZERS if part in content},
    )
