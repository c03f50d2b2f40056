"""Derives the configuration of a network from the shapes of its tensors."""

from __future__ import annotations

from typing import Any

from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.checks import CheckpointError

_MOST = 100  # blocks or layers; published networks have at most 32


class ComponentShapes:
    """The shapes of a component. Its methods raise CheckpointError naming a tensor that is missing."""

    def __init__(self, component: Component) -> None:
        self._name, self._shapes = component.name, component.shapes

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def of(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise CheckpointError(f"its {self._name} is incomplete: {name} is missing")
        return self._shapes[name]

    def size(self, name: str, axis: int) -> int:
        """The size of a tensor along an axis."""
        shape = self.of(name)
        if len(shape) <= axis or not shape[axis]:
            raise CheckpointError(
                f"{self._name}: {name} has shape {list(shape)}; expected at least {axis + 1} axes and no empty one"
            )
        return shape[axis]

    def count(self, pattern: str) -> int:
        """The number of existing names among `pattern.format(0)`, `pattern.format(1)`, ... up to the first gap."""
        return next((index for index in range(_MOST) if pattern.format(index) not in self), _MOST)


def unet_config(shapes: ComponentShapes) -> dict[str, Any]:
    """A UNet2DConditionModel's configuration, without attention heads, norm groups and sample_size."""
    first = "{}_blocks.{{}}.resnets.0.conv1.weight"
    downs, ups = shapes.count(first.format("down")), shapes.count(first.format("up"))
    crossed = [f"down_blocks.{i}.attentions.0" for i in range(downs)]
    depths = [shapes.count(f"{place}.transformer_blocks.{{}}.norm1.weight") or 1 for place in crossed]
    with_attention = next((place for place in crossed if f"{place}.norm.weight" in shapes), "mid_block.attentions.0")
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": shapes.size("conv_in.weight", 1),
        "out_channels": shapes.size("conv_out.weight", 0),
        "block_out_channels": [shapes.size(f"down_blocks.{i}.resnets.0.conv1.weight", 0) for i in range(downs)],
        "layers_per_block": shapes.count("down_blocks.0.resnets.{}.conv1.weight"),
        "down_block_types": [_block(shapes, "down", i, "DownBlock2D") for i in range(downs)],
        "up_block_types": [_block(shapes, "up", i, "UpBlock2D") for i in range(ups)],
        "transformer_layers_per_block": depths,
        "cross_attention_dim": shapes.size(f"{with_attention}.transformer_blocks.0.attn2.to_k.weight", 1),
        "use_linear_projection": len(shapes.of(f"{with_attention}.proj_in.weight")) == 2,
    }
    if (name := "time_embedding.cond_proj.weight") in shapes:
        config["time_cond_proj_dim"] = shapes.size(name, 1)
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


def _block(shapes: ComponentShapes, direction: str, index: int, plain: str) -> str:
    crossed = f"{direction}_blocks.{index}.attentions.0.norm.weight" in shapes
    return f"CrossAttn{plain}" if crossed else plain
