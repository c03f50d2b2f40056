"""IP-Adapters of the tiny UNets under the names of the technique's authors, and a CLIP image encoder for them."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPVisionModelWithProjection

from tests.tiny.vision import EMBEDDING, vision_config
from tests.tiny.vision import WIDTH as ENCODER_WIDTH
from tests.tiny.weights import fill

PLUS_TOKENS, PLUS_WIDTH, PLUS_LAYERS, HEAD = 6, 64, 4, 64
KEY_GAIN, VALUE_GAIN = 2.0, 3.0  # louder than published adapters, so that every setting moves the picture
Tensors = dict[str, torch.Tensor]


def write_ip_adapters(folder: Path, checkpoint: Path) -> None:
    """Write base, plus and full adapters of a checkpoint in diffusers' layout, and the folder `image_encoder`."""
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    write_image_encoder(folder / "image_encoder", 90)
    kinds = {"base": _base, "plus": _plus, "full": _full}
    for seed, (kind, make) in enumerate(kinds.items(), 91):
        generator = torch.Generator().manual_seed(seed)
        projection = make(text_width(unet), generator)
        write_ip_adapter(folder / kind, projection, keys_and_values(unet, generator), nested=kind == "base")


def write_ip_adapter(path: Path, projection: Tensors, layers: Tensors, *, nested: bool) -> None:
    """Write a `.safetensors`, and with `nested` also a `.bin` as the authors': a dictionary for each of the parts."""
    parts = {"image_proj": projection, "ip_adapter": layers}
    tensors = {f"{part}.{name}": tensor for part, found in parts.items() for name, tensor in found.items()}
    save_file(tensors, path.with_suffix(".safetensors"))
    if nested:
        torch.save(parts, path.with_suffix(".bin"))


def write_image_encoder(folder: Path, seed: int) -> None:
    """Write a CLIPVisionModelWithProjection."""
    encoder = CLIPVisionModelWithProjection(vision_config(hidden_act="gelu"))
    fill(encoder, seed, {})
    encoder.save_pretrained(folder)


def text_width(unet: UNet2DConditionModel) -> int:
    width: int = unet.config.cross_attention_dim
    return width


def keys_and_values(unet: UNet2DConditionModel, generator: torch.Generator) -> Tensors:
    """Numbered as diffusers counts its attention processors: self-attention has the even numbers."""
    layers = unet.state_dict()
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    tensors: Tensors = {}
    for number, name in enumerate(names):
        shape = layers[name.replace("processor", "to_k.weight")].shape
        for part, gain in (("to_k_ip", KEY_GAIN), ("to_v_ip", VALUE_GAIN)):
            tensors[f"{2 * number + 1}.{part}.weight"] = gain * matrix(shape[0], shape[1], generator)
    return tensors


def _base(width: int, generator: torch.Generator) -> Tensors:
    return {
        "proj.weight": matrix(4 * width, EMBEDDING, generator),
        "proj.bias": 0.1 * torch.randn(4 * width, generator=generator),
        **norm("norm", width, generator),
    }


def _full(width: int, generator: torch.Generator) -> Tensors:
    return {
        "proj.0.weight": matrix(ENCODER_WIDTH, ENCODER_WIDTH, generator),
        "proj.0.bias": 0.1 * torch.randn(ENCODER_WIDTH, generator=generator),
        "proj.2.weight": matrix(width, ENCODER_WIDTH, generator),
        "proj.2.bias": 0.1 * torch.randn(width, generator=generator),
        **norm("proj.3", width, generator),
    }


def _plus(width: int, generator: torch.Generator) -> Tensors:
    return plus(width, ENCODER_WIDTH, PLUS_TOKENS, generator)


def plus(width: int, embedding: int, tokens: int, generator: torch.Generator) -> Tensors:
    """A resampler with its own queries, of embeddings of this width."""
    queries = torch.randn(1, tokens, PLUS_WIDTH, generator=generator) / PLUS_WIDTH**0.5
    return {"latents": queries, **resampler(width, embedding, PLUS_WIDTH, generator)}


def resampler(width: int, embedding: int, hidden: int, generator: torch.Generator) -> Tensors:
    """From embeddings of a width to tokens of `width`, with one head of 64."""
    tensors: Tensors = {
        "proj_in.weight": matrix(hidden, embedding, generator),
        "proj_in.bias": 0.1 * torch.randn(hidden, generator=generator),
        "proj_out.weight": matrix(width, hidden, generator),
        "proj_out.bias": 0.1 * torch.randn(width, generator=generator),
        **norm("norm_out", width, generator),
    }
    for layer in range(PLUS_LAYERS):
        attention, feed_forward = f"layers.{layer}.0", f"layers.{layer}.1"
        tensors |= {
            **norm(f"{attention}.norm1", hidden, generator),
            **norm(f"{attention}.norm2", hidden, generator),
            f"{attention}.to_q.weight": matrix(HEAD, hidden, generator),
            f"{attention}.to_kv.weight": matrix(2 * HEAD, hidden, generator),
            f"{attention}.to_out.weight": matrix(hidden, HEAD, generator),
            **norm(f"{feed_forward}.0", hidden, generator),
            f"{feed_forward}.1.weight": matrix(4 * hidden, hidden, generator),
            f"{feed_forward}.3.weight": matrix(hidden, 4 * hidden, generator),
        }
    return tensors


def norm(name: str, width: int, generator: torch.Generator) -> Tensors:
    return {
        f"{name}.weight": 1 + 0.1 * torch.randn(width, generator=generator),
        f"{name}.bias": 0.1 * torch.randn(width, generator=generator),
    }


def matrix(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    matrix: torch.Tensor = torch.randn(rows, columns, generator=generator) / columns**0.5
    return matrix
