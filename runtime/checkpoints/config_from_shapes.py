"""Derives the configuration of a network from the shapes of its tensors. See `unet_blocks` for the UNet's."""

from __future__ import annotations

from typing import Any

from runtime.checkpoints.component_shapes import ComponentShapes
from runtime.checkpoints.unet_blocks import (
    block_config,
    controlnet_block_config,
    read_controlnet_blocks,
    read_unet_blocks,
)


def unet_config(shapes: ComponentShapes) -> dict[str, Any]:
    """A UNet2DConditionModel's configuration, without attention heads, norm groups and sample_size."""
    blocks = read_unet_blocks(shapes)
    attention = next((block.place for block in blocks.down if block.depths), "mid_block") + ".attentions.0"
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": shapes.size("conv_in.weight", 1),
        "out_channels": shapes.size("conv_out.weight", 0),
        "block_out_channels": [shapes.size(f"{block.place}.resnets.0.conv1.weight", 0) for block in blocks.down],
        **block_config(blocks),
        "cross_attention_dim": shapes.size(f"{attention}.transformer_blocks.0.attn2.to_k.weight", 1),
        "use_linear_projection": len(shapes.of(f"{attention}.proj_in.weight")) == 2,
    }
    if (name := "time_embedding.cond_proj.weight") in shapes:
        config["time_cond_proj_dim"] = shapes.size(name, 1)
    if (name := "add_embedding.linear_1.weight") in shapes:
        config["projection_class_embeddings_input_dim"] = shapes.size(name, 1)
    return config


def controlnet_config(shapes: ComponentShapes) -> dict[str, Any]:
    """A ControlNetModel's configuration, without attention heads, norm groups and what its pictures are."""
    blocks = read_controlnet_blocks(shapes)
    places = [block.place for block in (*blocks.down, blocks.mid) if block.depths]
    hint = "controlnet_cond_embedding"
    stages = shapes.end(f"{hint}.blocks.") // 2  # each has two convolutions; the second one changes the width
    config: dict[str, Any] = {
        "_class_name": "ControlNetModel",
        "in_channels": shapes.size("conv_in.weight", 1),
        "conditioning_channels": shapes.size(f"{hint}.conv_in.weight", 1),
        "conditioning_embedding_out_channels": [
            shapes.size(f"{hint}.conv_in.weight", 0),
            *(shapes.size(f"{hint}.blocks.{2 * stage + 1}.weight", 0) for stage in range(stages)),
        ],
        "block_out_channels": [shapes.size(f"{block.place}.resnets.0.conv1.weight", 0) for block in blocks.down],
        **controlnet_block_config(blocks),
    }
    if places:
        first = f"{places[0]}.attentions.0"
        config["cross_attention_dim"] = shapes.size(f"{first}.transformer_blocks.0.attn2.to_k.weight", 1)
        config["use_linear_projection"] = len(shapes.of(f"{first}.proj_in.weight")) == 2
    if (name := "add_embedding.linear_1.weight") in shapes:
        config["projection_class_embeddings_input_dim"] = shapes.size(name, 1)
    return config


def vae_config(shapes: ComponentShapes) -> dict[str, Any]:
    """An AutoencoderKL's configuration, without norm groups and scaling_factor."""
    first = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    levels = shapes.count(first)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes.size("encoder.conv_in.weight", 1),
        "out_channels": shapes.size("decoder.conv_out.weight", 0),
        "latent_channels": shapes.size("decoder.conv_in.weight", 1),
        "block_out_channels": [shapes.size(first.format(level), 0) for level in range(levels)],
        "layers_per_block": shapes.count("encoder.down_blocks.0.resnets.{}.conv1.weight"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def text_config(shapes: ComponentShapes) -> dict[str, Any]:
    """A CLIP text encoder's configuration, without the activation. Its attention heads are 64 wide, as all of CLIP."""
    width = shapes.size("text_model.embeddings.token_embedding.weight", 1)
    config = {
        "vocab_size": shapes.size("text_model.embeddings.token_embedding.weight", 0),
        "hidden_size": width,
        "max_position_embeddings": shapes.size("text_model.embeddings.position_embedding.weight", 0),
        "num_hidden_layers": shapes.count("text_model.encoder.layers.{}.layer_norm1.weight"),
        "intermediate_size": shapes.size("text_model.encoder.layers.0.mlp.fc1.weight", 0),
        "num_attention_heads": max(width // 64, 1),
    }
    if (name := "text_projection.weight") in shapes:
        config["projection_dim"] = shapes.size(name, 0)
    return config
