"""Textual inversions that a LoRA file bundles, as OneTrainer and LyCORIS save them: `bundle_emb.<name>.<key>`.

The name is the token that stands for the vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_header import TensorInfo
from runtime.prompts.embedding_file import KEYS, OUTPUT_KEYS, EmbeddingError, EmbeddingTensors, find_vectors

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


def output_embeddings(keys: Iterable[str]) -> set[str]:
    """Of these keys, those of embeddings that OneTrainer adds after the text encoder (see `OUTPUT_KEYS`)."""
    parts = {full: key for full in keys if (key := _known_key(full))}
    names = {key.name for key in parts.values() if key.end in OUTPUT_KEYS}
    return {full for full, key in parts.items() if key.name in names}


class _Key(NamedTuple):
    """The parts of a key behind `BUNDLE`: the name of the embedding, and the end."""

    name: str
    end: str


def _by_name(tensors: Mapping[str, TensorInfo]) -> dict[str, dict[str, str]]:
    """Name of an embedding -> the end of each of its keys -> the key."""
    bundled = [full for full in tensors if full.startswith(BUNDLE)]
    counts = Counter(_any_key(full).name for full in bundled)
    found: dict[str, dict[str, str]] = {}
    for full in bundled:
        key = _known_key(full)
        if key is None and counts[_any_key(full).name] == 1:
            key = _any_key(full)
        if key and key.end and key.name.strip() and len(key.name) <= MAX_NAME:
            found.setdefault(key.name, {})[key.end] = full
    return found


def _known_key(full: str) -> _Key | None:
    """The parts of a key that ends as those of an embedding's file; the name may have dots."""
    if not full.startswith(BUNDLE):
        return None
    end = next((end for end in (*KEYS, *OUTPUT_KEYS) if full.endswith(f".{end}", len(BUNDLE))), None)
    return _Key(full[len(BUNDLE) : -len(end) - 1], end) if end else None


def _any_key(full: str) -> _Key:
    """The parts of a key of `BUNDLE`, where the name has no dots: LyCORIS' packer copies any key of an embedding."""
    name, _, end = full.removeprefix(BUNDLE).partition(".")
    return _Key(name, end)
