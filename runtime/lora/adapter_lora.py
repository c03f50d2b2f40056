"""Reads the LoRA in the file of an IP-Adapter FaceID: low-rank changes of the UNet's attention layers."""

from __future__ import annotations

from pathlib import Path

from lorikeet.protocol.shorten import listed
from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.cross_attention import cross_attentions
from runtime.checkpoints.ip_adapter_names import LoraName, lora_names
from runtime.files.safetensors_file import read_header
from runtime.lora.key_suffixes import LoraKey
from runtime.lora.kinds.lora import LORA
from runtime.lora.kinds.lora_kind import FactorsError
from runtime.lora.layer_names import Target
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import LoraContents
from runtime.lora.lora_layer import KeyGroup, LoraLayer, make_layer
from runtime.lora.peft_metadata import PeftMetadata

_MAX_LISTED = 4
_MAX_PROBLEM = 300  # characters of one layer's problem
_MODULES = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}


def has_lora(path: Path) -> bool:
    """Whether the file of an IP-Adapter has a LoRA. Raises WeightFileError."""
    return bool(lora_names(read_header(path).tensors))


def read_adapter_lora(path: Path, unet: Component) -> LoraContents:
    """The layers of the UNet that the file of an IP-Adapter changes. Its other tensors are not the LoRA's.

    Raises WeightFileError, and LoraError when a tensor does not fit the UNet.
    """
    header = read_header(path)
    attentions = _attentions(unet)
    groups: dict[Target, KeyGroup] = {}
    for name, found in lora_names(header.tensors).items():
        if found is None:
            continue
        target = _target(found, attentions, unet)
        group = groups.setdefault(target, KeyGroup(target.module, target.attribute, (target,)))
        group.add(name, LoraKey(target.module, found.role, target.attribute, LORA))
    layers: list[LoraLayer] = []
    problems: list[str] = []
    for target, group in groups.items():
        try:
            weight = unet.shapes[target.parameter]
            layers.append(make_layer(target, group, header.tensors, PeftMetadata({}), weight))
        except FactorsError as error:
            problems.append(f"{target.parameter}: {error}")
    if problems:
        examples = listed(problems, _MAX_LISTED, _MAX_PROBLEM)
        raise LoraError(f"its LoRA does not fit the checkpoint's UNet ({len(problems)} layers): {examples}")
    return LoraContents(header, layers, {}, {})


def _attentions(unet: Component) -> list[str]:
    """All attention layers in the order in which diffusers counts them: self-attention before cross-attention."""
    crossed = [layer.name.removesuffix("attn2") for layer in cross_attentions(unet)]
    return [f"{block}{name}" for block in crossed for name in ("attn1", "attn2")]


def _target(name: LoraName, attentions: list[str], unet: Component) -> Target:
    layer = name.layer
    if isinstance(layer, int) and layer < len(attentions):
        layer = attentions[layer]
    if layer not in attentions:
        raise LoraError(
            f"its LoRA changes the attention layer {layer}, the UNet has {len(attentions)}: use an IP-Adapter that was "
            "made for this kind of checkpoint"
        )
    target = Target(unet.name, f"{layer}.{_MODULES[name.projection]}")
    if target.parameter not in unet.shapes:
        raise LoraError(f"its LoRA changes {target.parameter}, which the checkpoint's UNet does not have")
    return target
