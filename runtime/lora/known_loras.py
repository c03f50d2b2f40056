"""What LoRA files change in checkpoints, remembered: requests that follow each other often name one file.

A file is known by its digest. Nothing is remembered of a file that cannot be read or does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_header import TensorInfo
from runtime.files.stored_file import StoredFile, check_unchanged
from runtime.lora.adapter_lora import read_adapter_lora
from runtime.lora.alphas import read_alphas
from runtime.lora.lora_file import LoraContents, read_lora
from runtime.lora.lora_layer import LoraLayer
from runtime.lora.lora_receipt import LoraReceipt, make_lora_receipt
from runtime.prompts.embedding_file import EmbeddingTensors


@dataclass(frozen=True)
class LoraSummary:
    """`receipt`: what of a LoRA file applies. `components`: the names of the components that it changes.

    `embeddings`: the textual inversions that it bundles, by name.
    """

    receipt: LoraReceipt
    components: frozenset[str]
    embeddings: Mapping[str, EmbeddingTensors]


@dataclass(frozen=True)
class LoraLayers:
    """The layers of a LoRA file, and where the file has their tensors."""

    layers: Sequence[LoraLayer]
    tensors: Mapping[str, TensorInfo]


@lru_cache(maxsize=256)  # some kilobytes each
def lora_summary(stored: StoredFile, components: tuple[Component, ...], of_adapter: bool = False) -> LoraSummary:
    """`of_adapter`: it is the LoRA in the file of an IP-Adapter.

    Raises LoraError, WeightFileError and FileChangedError.
    """
    contents = _read(stored, components, of_adapter)
    receipt = make_lora_receipt(contents, read_alphas(stored, contents))
    components_changed = frozenset(layer.target.component for layer in contents.layers)
    return LoraSummary(receipt, components_changed, contents.embeddings)


@lru_cache(maxsize=16)  # up to some megabytes each
def lora_layers(stored: StoredFile, components: tuple[Component, ...], of_adapter: bool = False) -> LoraLayers:
    """As `lora_summary`."""
    contents = _read(stored, components, of_adapter)
    names = (name for layer in contents.layers for name in layer.tensor_names)
    return LoraLayers(contents.layers, {name: contents.header.tensors[name] for name in names})


def _read(stored: StoredFile, components: tuple[Component, ...], of_adapter: bool) -> LoraContents:
    if of_adapter:
        unet = next(component for component in components if component.role == "unet")
        contents = read_adapter_lora(stored.path, unet)
    else:
        contents = read_lora(stored.path, components)
    check_unchanged(stored.path, stored.fingerprint)
    return contents
