"""Textual inversions that a LoRA file bundles, as OneTrainer saves them: `bundle_emb.<name>.<key>`.

The name is the token that stands for the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_header import TensorInfo
from runtime.prompts.embedding_file import KEYS, EmbeddingError, EmbeddingTensors, find_vectors

BUNDLE = "bundle_emb."
MAX_NAME = 100  # characters, as of a token in the request


def bundled_embeddings(
    tensors: Mapping[str, TensorInfo], components: Sequence[Component]
) -> dict[str, EmbeddingTensors]:
    """Name -> the tensors for the text encoders among the components. What does not fit them is left out."""
    encoders = [component for component in components if component.role in ("text_encoder", "text_encoder_2")]
    found = {}
    for name, parts in _by_name(tensors).items():
        try:
            vectors = find_vectors({key: tensors[full] for key, full in parts.items()}, encoders)
        except EmbeddingError:
            continue
        found[name] = EmbeddingTensors(tuple(parts[key] for key in vectors.names), vectors.vectors)
    return found


def _by_name(tensors: Mapping[str, TensorInfo]) -> dict[str, dict[str, str]]:
    """Name of an embedding -> the end of each of its keys -> the key."""
    found: dict[str, dict[str, str]] = {}
    for full in tensors:
        rest = full.removeprefix(BUNDLE)
        key = next((key for key in KEYS if rest.endswith(f".{key}")), None)
        if key and rest != full:
            name = rest.removesuffix(f".{key}")
            if name.strip() and len(name) <= MAX_NAME:
                found.setdefault(name, {})[key] = full
    return found
