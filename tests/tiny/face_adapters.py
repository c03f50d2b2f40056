"""FaceID adapters and InstantID's adapter of the tiny UNets, under the names of the techniques' authors."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from tests.tiny.face_pack import EMBEDDING
from tests.tiny.ip_adapters import (
    Tensors,
    keys_and_values,
    matrix,
    norm,
    plus,
    resampler,
    text_width,
    write_ip_adapter,
)
from tests.tiny.vision import WIDTH as ENCODER_WIDTH

TOKENS, PORTRAIT_TOKENS, INSTANT_ID_TOKENS = 4, 16, 16
RANK, STRENGTH = 4, 0.25
_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")


def write_face_adapters(folder: Path, checkpoint: Path) -> None:
    """Write faceid, faceid_plus, portrait (without a LoRA) and instant_id beside the other adapters of a checkpoint."""
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    width = text_width(unet)
    for seed, kind in enumerate(("faceid", "faceid_plus", "portrait", "instant_id"), 101):
        generator = torch.Generator().manual_seed(seed)
        if kind == "faceid":
            projection = _faceid(width, TOKENS, 2 * EMBEDDING, generator)
        elif kind == "faceid_plus":
            projection = _faceid_plus(width, generator)
        elif kind == "portrait":
            projection = _faceid(width, PORTRAIT_TOKENS, EMBEDDING, generator)
        else:
            projection = plus(width, EMBEDDING, INSTANT_ID_TOKENS, generator)
        layers = keys_and_values(unet, generator)
        if kind.startswith("faceid"):
            layers |= _lora(unet, generator)
        halves = {name: tensor.half() for name, tensor in projection.items()}  # a face's embedding is wide
        write_ip_adapter(folder / kind, halves, layers, nested=kind == "faceid")


def _faceid(width: int, tokens: int, hidden: int, generator: torch.Generator) -> Tensors:
    return {**_from_face(width * tokens, hidden, generator), **norm("norm", width, generator)}


def _faceid_plus(width: int, generator: torch.Generator) -> Tensors:
    perceiver = resampler(width, ENCODER_WIDTH, width, generator)
    return {
        **_faceid(width, TOKENS, 2 * EMBEDDING, generator),
        **{f"perceiver_resampler.{name}": tensor for name, tensor in perceiver.items()},
    }


def _from_face(width: int, hidden: int, generator: torch.Generator) -> Tensors:
    # An embedding of length 1 has small numbers.
    return {
        "proj.0.weight": 16 * matrix(hidden, EMBEDDING, generator),
        "proj.0.bias": 0.1 * torch.randn(hidden, generator=generator),
        "proj.2.weight": matrix(width, hidden, generator),
        "proj.2.bias": 0.1 * torch.randn(width, generator=generator),
    }


def _lora(unet: UNet2DConditionModel, generator: torch.Generator) -> Tensors:
    """Numbered as diffusers counts its attention processors: self-attention has the even numbers."""
    weights = unet.state_dict()
    tensors: Tensors = {}
    for number, name in enumerate(unet.attn_processors):
        for projection in _PROJECTIONS:
            module = f"{projection}.0" if projection == "to_out" else projection
            rows, columns = weights[name.replace("processor", f"{module}.weight")].shape
            up = STRENGTH * torch.randn(rows, RANK, generator=generator) / RANK**0.5
            tensors[f"{number}.{projection}_lora.down.weight"] = matrix(RANK, columns, generator)
            tensors[f"{number}.{projection}_lora.up.weight"] = up
    return tensors
