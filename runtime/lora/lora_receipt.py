"""What a LoRA file changes in a checkpoint, in numbers: matched and unmatched tensors, ranks and alphas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from lorikeet.protocol.shorten import shorten
from runtime.lora.lora_file import LoraContents
from runtime.lora.lora_layer import LoraLayer
from runtime.lora.unmatched import UnmatchedKind

_MAX_NAMES = 8
_MAX_NAME = 100  # characters
_MAX_GROUPS = 16
_PEFT = "base_model."  # the prefix of the files that PEFT saves


class LoraLayerGroup(BaseModel):
    """Layers of one kind, rank and alpha. The effective scale of each is the request's LoRA scale times `multiplier`.

    `multiplier` is alpha / rank, or alpha / sqrt(rank) for rank-stabilized LoRA. `rank` and `alpha` are None where
    alpha does not scale the change. `alpha` is the rank where the file has none.
    """

    model_config = ConfigDict(frozen=True)
    kind: str
    rank: int | None
    alpha: float | None
    multiplier: float
    layers: int


class UnmatchedGroup(BaseModel):
    """Tensors that change nothing, of one kind: how many, and the names of the first."""

    model_config = ConfigDict(frozen=True)
    kind: UnmatchedKind
    count: int
    names: tuple[str, ...]


class LoraReceipt(BaseModel):
    """Whether a LoRA file applies, and how strongly.

    `tensors`, `matched`: tensors in the file, and those that change a layer. `layers`: layers that change.
    `groups`: these layers by kind, rank and alpha, the largest groups first; small groups may be left out.
    `embeddings`: the names of the first bundled textual inversions that fit the checkpoint.
    `is_alpha_assumed`: PEFT saved the file without an alpha, so it is taken to be the rank.
    """

    model_config = ConfigDict(frozen=True)
    tensors: int
    matched: int
    layers: int
    groups: tuple[LoraLayerGroup, ...]
    embeddings: tuple[str, ...]
    unmatched: tuple[UnmatchedGroup, ...]
    is_alpha_assumed: bool


def make_lora_receipt(contents: LoraContents, alphas: Mapping[str, float]) -> LoraReceipt:
    """`alphas`: tensor name -> number, of each alpha that is a tensor (see `read_alphas`)."""
    groups = Counter(_group(layer, alphas) for layer in contents.layers)
    return LoraReceipt(
        tensors=len(contents.header.tensors),
        matched=sum(len(layer.tensor_names) for layer in contents.layers),
        layers=len(contents.layers),
        groups=tuple(
            LoraLayerGroup(kind=kind, rank=rank, alpha=alpha, multiplier=multiplier, layers=count)
            for (kind, rank, alpha, multiplier), count in groups.most_common(_MAX_GROUPS)
        ),
        embeddings=tuple(contents.embeddings)[:_MAX_NAMES],
        unmatched=tuple(
            UnmatchedGroup(
                kind=kind, count=len(keys), names=tuple(shorten(key, _MAX_NAME) for key in keys[:_MAX_NAMES])
            )
            for kind, keys in contents.unmatched.items()
        ),
        is_alpha_assumed=any(map(_is_alpha_assumed, contents.layers)),
    )


def _group(layer: LoraLayer, alphas: Mapping[str, float]) -> tuple[str, int | None, float | None, float]:
    """(kind, rank, alpha, multiplier) of a layer."""
    kind = layer.kind.name if layer.magnitude is None else f"DoRA over {layer.kind.name}"
    if layer.alpha_rank is None:
        return kind, None, None, 1.0
    alpha = alphas[layer.alpha] if isinstance(layer.alpha, str) else layer.alpha
    rank = layer.alpha_rank
    return kind, rank, float(rank) if alpha is None else alpha, layer.scaling(alpha)


def _is_alpha_assumed(layer: LoraLayer) -> bool:
    has_rank_alone = layer.alpha is None and layer.alpha_rank is not None
    return has_rank_alone and any(key.startswith(_PEFT) for key in layer.keys.values())
