"""Which tensors of a file are the vectors of a textual inversion, from its header alone. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorikeet.protocol.shorten import listed, shorten
from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_file import FLOATS, read_header
from runtime.files.safetensors_header import TensorInfo
from runtime.lora.key_suffixes import split_key
from runtime.networks.architecture import DEFAULTS

MAX_VECTORS = 75  # a token's vectors fit into one chunk of a prompt
# The keys of SDXL's text encoders: of OneTrainer, kohya and A1111, of diffusers' training scripts, of fal's.
_FIRST = ("clip_l", "text_encoders_0", "text_encoder")
_SECOND = ("clip_g", "text_encoders_1", "text_encoder_2")
_ALONE = ("string_to_param.*", "emb_params", "emp_params")  # of A1111, kohya and OneTrainer for one text encoder
KEYS = (*_FIRST, *_SECOND, *_ALONE)
# With these, OneTrainer's other vectors may be zeros that must not be used.
OUTPUT_KEYS = ("clip_l_out", "clip_g_out", "emp_params_out")


class EmbeddingError(ValueError):
    """The file does not fit the checkpoint; the message is fit for the client."""


@dataclass(frozen=True)
class EmbeddingTensors:
    """`names`: for each text encoder, the tensor of its vectors: [vectors, width], or [width] for a single one."""

    names: tuple[str, ...]
    vectors: int


def read_embedding(path: Path, encoders: Sequence[Component]) -> EmbeddingTensors:
    """Raises EmbeddingError, and WeightFileError for a file that cannot be read."""
    tensors = read_header(path).tensors
    if any(map(split_key, tensors)):
        raise EmbeddingError("this file is a LoRA, not a textual inversion embedding: name it in the field loras")
    return find_vectors(tensors, encoders)


def find_vectors(tensors: Mapping[str, TensorInfo], encoders: Sequence[Component]) -> EmbeddingTensors:
    """The vectors for these text encoders among the tensors of one embedding. Raises EmbeddingError."""
    if not tensors.keys().isdisjoint(OUTPUT_KEYS):
        raise EmbeddingError(
            "it is an output embedding of OneTrainer, which is added after the text encoder: not supported; "
            "train one without output embeddings"
        )
    names = _names(tensors, encoders)
    if others := sorted(tensors.keys() - set(names)):
        raise EmbeddingError(f"it has {listed(names)} and other tensors, which are not supported: {listed(others)}")
    counts = [_count(name, tensors[name], encoder) for name, encoder in zip(names, encoders, strict=True)]
    if len(set(counts)) > 1:
        found = " and ".join(f"{name} has {count}" for name, count in zip(names, counts, strict=True))
        raise EmbeddingError(f"{found} vectors: expected equal numbers")
    return EmbeddingTensors(names, counts[0])


def _names(tensors: Mapping[str, TensorInfo], encoders: Sequence[Component]) -> tuple[str, ...]:
    first, second = (next((key for key in keys if key in tensors), None) for keys in (_FIRST, _SECOND))
    if len(encoders) > 1:
        if first is None or second is None:
            raise EmbeddingError(
                f"it has no vectors for one of SDXL's two text encoders: expected {_FIRST[0]} and {_SECOND[0]}, "
                f"found {_found(tensors)}; use an embedding made for SDXL"
            )
        return first, second
    if second is not None:
        raise EmbeddingError(
            f"it was made for SDXL's two text encoders ({_found(tensors)}), but the checkpoint has one; "
            "use an embedding made for the checkpoint's model"
        )
    for key in _ALONE:
        if key in tensors:
            return (key,)
    if len(tensors) != 1:
        raise EmbeddingError(f"not a textual inversion embedding: expected one tensor, found {_found(tensors)}")
    return tuple(tensors)


def _count(name: str, info: TensorInfo, encoder: Component) -> int:
    """How many vectors a tensor holds for the text encoder."""
    if info.dtype not in FLOATS:
        raise EmbeddingError(f"{shorten(name)} has dtype {info.dtype}; expected {', '.join(FLOATS)}")
    width, shape = encoder.config.get("hidden_size", DEFAULTS["text_encoder"]["hidden_size"]), info.shape
    if len(shape) not in (1, 2) or shape[-1] != width:
        raise EmbeddingError(
            f"{shorten(name)} has shape {list(shape)}; expected vectors of width {width}, that of the checkpoint's "
            f"{encoder.name}: use an embedding made for the checkpoint's model"
        )
    count = shape[0] if len(shape) == 2 else 1
    if not 1 <= count <= MAX_VECTORS:
        raise EmbeddingError(f"{shorten(name)} has {count} vectors; expected 1 to {MAX_VECTORS}")
    return count


def _found(tensors: Mapping[str, TensorInfo]) -> str:
    return f"{len(tensors)}: {listed(tensors)}" if tensors else "none"
