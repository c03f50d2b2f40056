"""Files of networks in layouts that public reports show, made of the tiny networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

Tensors = dict[str, torch.Tensor]
_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_VISION = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_CLIP_TEXT = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def halves(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: tensor.half() for name, tensor in tensors.items()}


def without_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def nested(tensors: Mapping[str, torch.Tensor]) -> dict[str, Tensors]:
    """The two dictionaries of an IP-Adapter's `.bin`."""
    parts: dict[str, Tensors] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return parts


def lightning_checkpoint(controlnet: Tensors, checkpoint: Tensors) -> dict[str, object]:
    """What PyTorch Lightning saves of the training of a ControlNet: the whole model, and the optimizer's state."""
    state = {0: {"step": torch.tensor(4.0), "exp_avg": torch.zeros(3)}, 1: {"step": torch.tensor(4.0)}}
    return {
        "epoch": 76,
        "global_step": 38576,
        "pytorch-lightning_version": "1.5.0",
        "state_dict": checkpoint | controlnet | {"logvar": torch.zeros(1000)},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None, "dirpath": "checkpoints"}},
        "optimizer_states": [{"state": state, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.999), "params": [0, 1]}]}],
        "lr_schedulers": [],
    }


def named_by_unet(adapter: Tensors, unet: UNet2DConditionModel) -> Tensors:
    """The layers of an IP-Adapter's file, without root, under the names that they have in the UNet."""
    names = list(unet.attn_processors)  # of self-attention too, as the numbers in the file count them
    layers = (name.split(".", 2) for name in adapter if name.startswith("ip_adapter."))
    return {f"{names[int(number)]}.{rest}": adapter[f"{root}.{number}.{rest}"] for root, number, rest in layers}


def training_run(adapter: Tensors, folder: Path, with_modules: bool) -> Tensors:
    """What `accelerate` saves of the training of an IP-Adapter. safetensors leaves out `adapter_modules`, which repeat
    the layers that the UNet holds."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    tensors = {f"unet.{name}": tensor for name, tensor in (unet.state_dict() | named_by_unet(adapter, unet)).items()}
    for name, tensor in adapter.items():
        part, _, rest = name.partition(".")
        if part == "image_proj" or with_modules:
            tensors[f"{'image_proj_model' if part == 'image_proj' else 'adapter_modules'}.{rest}"] = tensor
    return tensors


def plus_of_width(hidden: int, width: int) -> Tensors:
    """An IP-Adapter Plus for one cross-attention layer of 4 values, with a resampler of one layer, all zeros."""
    attention, feed_forward = "image_proj.layers.0.0", "image_proj.layers.0.1"
    shapes: dict[str, tuple[int, ...]] = {
        "image_proj.latents": (1, 2, hidden),
        "image_proj.proj_in.weight": (hidden, 8),
        "image_proj.proj_in.bias": (hidden,),
        "image_proj.proj_out.weight": (width, hidden),
        "image_proj.proj_out.bias": (width,),
        "image_proj.norm_out.weight": (width,),
        "image_proj.norm_out.bias": (width,),
        **{f"{attention}.{norm}.{kind}": (hidden,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
        f"{attention}.to_q.weight": (64, hidden),
        f"{attention}.to_kv.weight": (128, hidden),
        f"{attention}.to_out.weight": (hidden, 64),
        f"{feed_forward}.0.weight": (hidden,),
        f"{feed_forward}.0.bias": (hidden,),
        f"{feed_forward}.1.weight": (16, hidden),
        f"{feed_forward}.3.weight": (hidden, 16),
        "ip_adapter.1.to_k_ip.weight": (4, width),
        "ip_adapter.1.to_v_ip.weight": (4, width),
    }
    return {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}


def only_average() -> Tensors:
    """Names of a checkpoint of latent-diffusion that has no UNet but its moving average."""
    names = (
        "model_ema.diffusion_modelinput_blocks00weight",
        "model_ema.decay",
        "first_stage_model.decoder.conv_in.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    )
    return {name: torch.zeros(4, 4) for name in names}


def open_clip_vision(encoder: Tensors) -> Tensors:
    """The image encoder under OpenCLIP's names."""
    inner = without_prefix(encoder, "vision_model.")
    return {
        "visual.proj": inner["visual_projection.weight"].t().contiguous(),
        **{f"visual.{name}": inner[usual] for name, usual in _CLIP_VISION.items()},
        **{f"visual.{name}": tensor for name, tensor in _blocks(inner).items()},
    }


def open_clip_model(encoder: Tensors) -> Tensors:
    """A whole model of OpenCLIP with the image encoder."""
    text = without_prefix(clip_text_model(), "text_model.")
    return open_clip_vision(encoder) | {
        "text_projection": text["text_projection.weight"].t().contiguous(),
        "logit_scale": torch.tensor(4.6),
        **{name: text[usual] for name, usual in _CLIP_TEXT.items()},
        **_blocks(text),
    }


def clip_text_model() -> Tensors:
    config = CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    return dict(CLIPTextModelWithProjection(config).state_dict())


def _blocks(inner: Tensors) -> Tensors:
    tensors: Tensors = {}
    layers = {int(match[1]) for name in inner if (match := re.match(r"encoder\.layers\.(\d+)\.", name))}
    for layer in layers:
        usual, place = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            tensors[f"{place}.attn.in_proj_{kind}"] = torch.cat(
                [inner[f"{usual}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
            for new, old in _CLIP_LAYER.items():
                tensors[f"{place}.{old}.{kind}"] = inner[f"{usual}.{new}.{kind}"]
    return tensors


def load_controlnet(tiny: Path, name: str) -> Tensors:
    """`<kind>_original` or `<kind>_file`."""
    return load_file(tiny / "controlnets" / f"{name}.safetensors")
