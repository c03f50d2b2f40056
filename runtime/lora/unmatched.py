"""The keys of a LoRA file that change nothing, by kind. They do not refuse a file whose other keys match."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from runtime.lora.bundled_embeddings import BUNDLE, output_embeddings
from runtime.lora.key_suffixes import MAX_KEY
from runtime.lora.layer_names import LayerNames


class UnmatchedKind(str, Enum):
    """Why a key matches nothing. The value is the name in the receipt."""

    EMBEDDING = "bundled_embedding"
    OUTPUT_EMBEDDING = "output_embedding"
    COMPONENT = "other_component"
    UNSUPPORTED = "unsupported"
    LAYER = "unknown_layer"


DESCRIPTIONS = {
    UnmatchedKind.EMBEDDING: "bundled embeddings that do not fit the checkpoint",
    UnmatchedKind.OUTPUT_EMBEDDING: "output embeddings of OneTrainer, which are added after the text encoder: not "
    "supported",
    UnmatchedKind.COMPONENT: "keys for other components",
    UnmatchedKind.UNSUPPORTED: "unsupported keys of known layers",
    UnmatchedKind.LAYER: "keys that name no layer",
}


def by_kind(keys: Collection[str], names: LayerNames) -> dict[UnmatchedKind, list[str]]:
    """The keys of each kind, without empty kinds."""
    found: dict[UnmatchedKind, list[str]] = {kind: [] for kind in UnmatchedKind}
    outputs = output_embeddings(keys)
    for key in keys:
        found[UnmatchedKind.OUTPUT_EMBEDDING if key in outputs else _kind(key, names)].append(key)
    return {kind: named for kind, named in found.items() if named}


def _kind(key: str, names: LayerNames) -> UnmatchedKind:
    if key.startswith(BUNDLE):
        return UnmatchedKind.EMBEDDING
    if len(key) > MAX_KEY:
        return UnmatchedKind.LAYER
    if names.is_for_other_component(key):
        return UnmatchedKind.COMPONENT
    return UnmatchedKind.UNSUPPORTED if names.begins_with_layer(key) else UnmatchedKind.LAYER
