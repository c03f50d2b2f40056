"""Reads a CLIP image encoder, which is untrusted, from a file of transformers or of OpenCLIP."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from runtime.checkpoints.checkpoint import Component, WeightFile
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.component_shapes import ComponentShapes
from runtime.checkpoints.layouts import OPEN_CLIP_VISION_FIRST, LayoutName
from runtime.checkpoints.network_config import check_config
from runtime.checkpoints.other_models import other_file
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.stored_file import StoredFile

_FIRST = "vision_model.embeddings.patch_embedding.weight"
_PROJECTION = "visual_projection.weight"
_CLASSES = ("CLIPVisionModelWithProjection", "CLIPModel", "CLIPVisionModel")  # the last one never has all tensors
# Attention heads and activation by hidden size: ViT-B, ViT-L, ViT-H and ViT-bigG. Shapes cannot give them.
_PUBLISHED: dict[int, dict[str, Any]] = {
    768: {"num_attention_heads": 12, "hidden_act": "quick_gelu"},
    1024: {"num_attention_heads": 16, "hidden_act": "quick_gelu"},
    1280: {"num_attention_heads": 16, "hidden_act": "gelu"},
    1664: {"num_attention_heads": 16, "hidden_act": "gelu"},
}


def read_image_encoder(stored: StoredFile, config: dict[str, Any] | None) -> Component:
    """The image encoder in a weight file. `config`: of its config.json; None: there is none. Raises CheckpointError."""
    try:
        names = read_header(stored.path).tensors.keys()
        weights = WeightFile(path=stored.path, digest=stored.digest, fingerprint=stored.fingerprint)
        layout: LayoutName = "open_clip" if OPEN_CLIP_VISION_FIRST in names else "component"
        bare = Component(role="image_encoder", config={}, files=(weights,), layout=layout)
        _check_names(bare, names)
        known = _known(ComponentShapes(bare)) if config is None else _encoder_config(config)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    check_config("image_encoder", known)
    return Component(role="image_encoder", config=known, files=bare.files, layout=layout)


def _check_names(encoder: Component, names: Collection[str]) -> None:
    if _FIRST not in encoder.shapes:
        what = other_file(names)
        hint = f"it is {what}" if what else f"expected {_FIRST}, as in transformers, or {OPEN_CLIP_VISION_FIRST}"
        raise CheckpointError(f"it is no CLIP image encoder: {hint}")
    if _PROJECTION not in encoder.shapes:
        raise CheckpointError(
            f"its {_PROJECTION} is missing, as in a CLIPVisionModel: expected a CLIPVisionModelWithProjection or a "
            "CLIPModel"
        )


def _encoder_config(config: dict[str, Any]) -> dict[str, Any]:
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    if names and not any(name in _CLASSES for name in names):
        raise CheckpointError(f"its config.json names another class: expected {_CLASSES[0]}")
    return vision_config(config)


def vision_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of an image encoder, also of one in a larger model of CLIP."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return config
    return {**vision, "projection_dim": config.get("projection_dim", vision.get("projection_dim", 512))}


def _known(shapes: ComponentShapes) -> dict[str, Any]:
    """The configuration of a published encoder, from the shapes of its tensors."""
    width, patch = shapes.size(_FIRST, 0), shapes.size(_FIRST, 2)
    if width not in _PUBLISHED:
        raise CheckpointError(
            f"its hidden size is {width}, which no published CLIP has: give the folder with its config.json"
        )
    positions = shapes.size("vision_model.embeddings.position_embedding.weight", 0)
    return {
        **_PUBLISHED[width],
        "hidden_size": width,
        "patch_size": patch,
        "image_size": patch * round((positions - 1) ** 0.5),
        "num_channels": shapes.size(_FIRST, 1),
        "num_hidden_layers": shapes.count("vision_model.encoder.layers.{}.layer_norm1.weight"),
        "intermediate_size": shapes.size("vision_model.encoder.layers.0.mlp.fc1.weight", 0),
        "projection_dim": shapes.size("visual_projection.weight", 0),
    }
