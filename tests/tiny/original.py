"""Single-file checkpoints: the tensors of a folder under the names of Stable Diffusion's original code, or of
diffusers with a prefix. Written out from the layout of the published files, not from any converter's tables."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors"}
UNET_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_original(path: Path, folder: Path, text_encoders: dict[str, str]) -> None:
    """Write the checkpoint in `folder` as one file in the original layout, with what such files hold besides.

    `text_encoders`: the place of each, and so its kind: `….transformer` is CLIP's, `….model` is OpenCLIP's.
    """
    parts = {name: load(folder, name) for name in ("unet", "vae", *text_encoders)}
    extras = {
        "alphas_cumprod": torch.linspace(1.0, 0.0, 1000),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.diffusion_modelout2weight": torch.zeros(4),
        "global_step": torch.tensor(1),
    }
    _save(path, original(parts, text_encoders) | extras)


def original(parts: Mapping[str, Tensors], text_encoders: Mapping[str, str]) -> Tensors:
    """The tensors of a checkpoint's components in the original layout."""
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in original_unet(parts["unet"]).items()}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in original_vae(parts["vae"]).items()}
    for name, place in text_encoders.items():
        given = _clip(parts[name]) if place.endswith(".transformer") else _open_clip(parts[name])
        tensors |= {f"{place}.{key}": tensor for key, tensor in given.items()}
    return tensors


def write_prefixed(path: Path, folder: Path, components: tuple[str, ...]) -> None:
    """Write the components of `folder` as one file under diffusers' names, each behind its component's."""
    _save(path, {f"{name}.{key}": tensor for name in components for key, tensor in load(folder, name).items()})


def write_sidecar(path: Path, folder: Path, tokenizers: tuple[str, ...]) -> None:
    """Write what the shapes in the file at `path` do not tell of the tiny checkpoint in `folder`."""
    config: dict[str, Any] = {
        "unet": _of(folder, "unet", "attention_head_dim", "norm_num_groups", "sample_size", "upcast_attention"),
        "vae": _of(folder, "vae", "norm_num_groups", "sample_size"),
        "scheduler": json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
    }
    for index, name in enumerate(tokenizers):
        encoder = "text_encoder_2" if index else "text_encoder"
        config[encoder] = _of(folder, encoder, "num_attention_heads", "num_hidden_layers")
        config[name] = f"../{folder.name}/{name}"
    path.with_suffix(".config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, component: str) -> Tensors:
    """A component's tensors, under the names that the folder has for them."""
    return load_file(folder / component / WEIGHTS.get(component, "model.safetensors"))


def original_unet(stored: Tensors) -> Tensors:
    """A UNet under its original names, without their root."""
    return {_unet_name(name, stored): tensor for name, tensor in stored.items()}


def original_vae(stored: Tensors) -> Tensors:
    """A VAE under its original names, without their root, its attention made of convolutions."""
    tensors = {}
    for name, tensor in stored.items():
        is_matrix = ".attentions." in name and tensor.dim() == 2
        tensors[_vae_name(name)] = tensor[:, :, None, None].contiguous() if is_matrix else tensor
    return tensors


def _unet_name(name: str, stored: Tensors) -> str:
    way, block, part, rest = "", 0, "", ""
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(.*)", name):
        way, block, part, rest = match[1], int(match[2]), match[3], match[4]
    else:
        outside = next(key for key in UNET_OUTSIDE if name.startswith(f"{key}."))
        return f"{UNET_OUTSIDE[outside]}.{_resnet(name.removeprefix(f'{outside}.'))}"
    layers = next(count for count in range(1, 9) if f"down_blocks.0.resnets.{count}.conv1.weight" not in stored)
    period = layers + 1
    if part == "downsamplers":
        return f"input_blocks.{period * (block + 1)}.0.op.{rest.removeprefix('0.conv.')}"
    if part == "upsamplers":
        crossed = any(key.startswith(f"up_blocks.{block}.attentions.") for key in stored)
        return f"output_blocks.{period * block + layers}.{2 if crossed else 1}.{rest.removeprefix('0.')}"
    index, _, inner = rest.partition(".")
    number = period * block + int(index) + (1 if way == "down" else 0)
    place = f"{'input' if way == 'down' else 'output'}_blocks.{number}"
    return f"{place}.0.{_resnet(inner)}" if part == "resnets" else f"{place}.1.{inner}"


def _resnet(name: str) -> str:
    part, _, kind = name.rpartition(".")
    return f"{UNET_RESNET[part]}.{kind}" if part in UNET_RESNET else name


def _vae_name(name: str) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    if ".attentions.0." in name:
        half, _, inner = name.partition(".mid_block.attentions.0.")
        part, _, kind = inner.rpartition(".")
        return f"{half}.mid.attn_1.{VAE_ATTENTION[part]}.{kind}"
    if match := re.match(r"encoder\.down_blocks\.(\d)\.(.*)", name):
        name = f"encoder.down.{match[1]}.{match[2]}"
    if match := re.match(r"decoder\.up_blocks\.(\d)\.(.*)", name):
        name = f"decoder.up.{3 - int(match[1])}.{match[2]}"
    name = name.replace(".resnets.", ".block.")
    return name.replace(".downsamplers.0.", ".downsample.").replace(".upsamplers.0.", ".upsample.")


def _clip(stored: Tensors) -> Tensors:
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in stored.items()}
    return tensors | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


def _open_clip(stored: Tensors) -> Tensors:
    """With the last layer that SD 2.x does not use, where the text encoder has no projection of its own."""
    stored = {name.removeprefix("text_model."): tensor for name, tensor in stored.items()}
    projection = stored.pop("text_projection.weight", None)
    layers = 1 + max(int(name.split(".")[2]) for name in stored if name.startswith("encoder.layers."))
    if projection is None:
        last = f"encoder.layers.{layers - 1}."
        copies = {name: tensor * 0.5 for name, tensor in stored.items() if name.startswith(last)}
        stored |= {name.replace(last, f"encoder.layers.{layers}."): tensor for name, tensor in copies.items()}
        layers += 1
    width = len(stored["final_layer_norm.weight"])
    tensors = {
        "positional_embedding": stored["embeddings.position_embedding.weight"],
        "token_embedding.weight": stored["embeddings.token_embedding.weight"],
        "ln_final.weight": stored["final_layer_norm.weight"],
        "ln_final.bias": stored["final_layer_norm.bias"],
        "text_projection": projection.t().contiguous() if projection is not None else torch.eye(width),
        "logit_scale": torch.tensor(4.6),
    }
    for layer in range(layers):
        inside, outside = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            fused = [stored[f"{inside}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{outside}.attn.in_proj_{kind}"] = torch.cat(fused)
            for new, old in OPEN_CLIP_LAYER.items():
                tensors[f"{outside}.{old}.{kind}"] = stored[f"{inside}.{new}.{kind}"]
    return tensors


def _of(folder: Path, component: str, *names: str) -> dict[str, Any]:
    config = json.loads((folder / component / "config.json").read_text())
    return {name: config[name] for name in names}


def _save(path: Path, tensors: Tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": "pt"})
