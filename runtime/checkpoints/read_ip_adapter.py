"""Reads the file of an IP-Adapter, which is untrusted, and checks that it fits a UNet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from runtime.checkpoints.checkpoint import Component, WeightFile
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.component_shapes import ComponentShapes
from runtime.checkpoints.cross_attention import CrossAttention
from runtime.checkpoints.ip_adapter_names import ProjectionKind, counts_all_blocks, projection_kind
from runtime.checkpoints.other_models import other_file, other_model
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.stored_file import StoredFile

_HEAD_WIDTH = 64
_MOST_TOKENS = 1024
_KOLORS = {"projection": "plus", "hidden_dims": 2048, "cross_attention_dim": 2048}  # SDXL's resamplers have 1280 inside


def read_ip_adapter(stored: StoredFile) -> Component:
    """The network of an IP-Adapter's file. Raises CheckpointError."""
    try:
        names = read_header(stored.path).tensors.keys()
        kind = projection_kind(names)
        if kind is None:
            raise CheckpointError(_not_an_adapter(names))
        weights = WeightFile(path=stored.path, digest=stored.digest, fingerprint=stored.fingerprint)
        bare = Component(role="image_projection", config={}, files=(weights,), layout="ip_adapter")
        config = _config(kind, ComponentShapes(bare)) | {"inner_widths": [shape[0] for shape in _keys(bare)]}
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    return Component(role="image_projection", config=config, files=bare.files, layout=bare.layout)


def check_fits(adapter: Component, layers: Sequence[CrossAttention], text_width: int) -> None:
    """Raises CheckpointError when the adapter was made for a UNet with other cross-attention layers, or for Kolors."""
    if _KOLORS.items() <= adapter.config.items():
        # The UNet of Kolors has the layers of SDXL, so the shapes of keys and values do not differ.
        raise CheckpointError(
            "it was made for Kolors (its resampler has 2048 hidden values, those for SDXL have 1280): use an "
            "IP-Adapter that was made for SDXL"
        )
    found, expected = _keys(adapter), [(layer.width, text_width) for layer in layers]
    if found != expected:
        raise CheckpointError(
            f"it does not fit the checkpoint: it has keys for {len(found)} cross-attention layers of the sizes "
            f"{_sizes(found)}, the UNet has {len(expected)} of {_sizes(expected)}: use an IP-Adapter that was made for "
            "this kind of checkpoint"
        )


def _keys(adapter: Component) -> list[tuple[int, int]]:
    """The shapes of the layers that make keys, in the UNet's order. Raises CheckpointError when one is missing."""
    shapes = ComponentShapes(adapter)
    names = [f"to_k_ip.{index}.weight" for index in range(shapes.end("to_k_ip."))]
    return [(shapes.size(name, 0), shapes.size(name, 1)) for name in names]


def _not_an_adapter(names: Collection[str]) -> str:
    what = (
        "made for Flux or Stable Diffusion 3" if counts_all_blocks(names) else other_model(names) or other_file(names)
    )
    hint = f"it is {what}" if what else "expected tensors image_proj.… and ip_adapter.…"
    return f"it is no IP-Adapter of SD or SDXL: {hint}"


def _sizes(shapes: Collection[tuple[int, ...]]) -> str:
    return ", ".join(sorted({"x".join(map(str, shape)) for shape in shapes})[:4]) or "none"


def _config(kind: ProjectionKind, shapes: ComponentShapes) -> dict[str, Any]:
    """The options of `runtime.networks.image_projection`."""
    own = "image_proj"
    if kind == "base":
        width = shapes.size(f"{own}.norm.weight", 0)
        tokens = shapes.size(f"{own}.image_embeds.weight", 0) // width
        config = {"image_embed_dim": shapes.size(f"{own}.image_embeds.weight", 1), "tokens": tokens}
        return _checked({"projection": kind, "cross_attention_dim": width, **config})
    if kind == "full":
        config = {"image_embed_dim": shapes.size(f"{own}.ff.net.0.proj.weight", 1)}
        return _checked({"projection": kind, "cross_attention_dim": shapes.size(f"{own}.norm.weight", 0), **config})
    if kind == "faceid":
        face = _face_layers(shapes, f"{own}.ff", shapes.size(f"{own}.norm.weight", 0))
        return _checked({"projection": kind, "cross_attention_dim": shapes.size(f"{own}.norm.weight", 0), **face})
    if kind == "faceid_plus":
        return _checked(_face_resampler(shapes))
    hidden = shapes.size(f"{own}.latents", 2)
    config = {"tokens": shapes.size(f"{own}.latents", 1), "image_embed_dim": shapes.size(f"{own}.proj_in.weight", 1)}
    return _checked({"projection": kind, **config, **_resampler(shapes, hidden)})


def _face_layers(shapes: ComponentShapes, place: str, width: int) -> dict[str, Any]:
    """Of the two layers that make tokens of `width` values of a face."""
    face = shapes.size(f"{place}.net.0.proj.weight", 1)
    return {
        "face_embed_dim": face,
        "face_ffn_ratio": shapes.size(f"{place}.net.0.proj.weight", 0) / face,
        "tokens": shapes.size(f"{place}.net.2.weight", 0) // width,
    }


def _face_resampler(shapes: ComponentShapes) -> dict[str, Any]:
    own = "image_proj"
    hidden = shapes.size(f"{own}.norm.weight", 0)
    config = _resampler(shapes, hidden)
    if config["cross_attention_dim"] != hidden:
        raise CheckpointError(
            f"its resampler makes {config['cross_attention_dim']} values of {hidden}: expected equal numbers, because "
            "the shortcut adds them"
        )
    return {
        "projection": "faceid_plus",
        "image_embed_dim": shapes.size(f"{own}.proj_in.weight", 1),
        **_face_layers(shapes, f"{own}.proj", hidden),
        **config,
    }


def _resampler(shapes: ComponentShapes, hidden: int) -> dict[str, Any]:
    own, layer = "image_proj", "image_proj.layers.0"
    return {
        "cross_attention_dim": shapes.size(f"{own}.proj_out.weight", 0),
        "hidden_dims": hidden,
        "depth": shapes.end(f"{own}.layers."),
        "heads": max(shapes.size(f"{layer}.attn.to_q.weight", 0) // _HEAD_WIDTH, 1),
        "ffn_ratio": shapes.size(f"{layer}.ff.1.net.0.proj.weight", 0) / hidden,
    }


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Bounds the time in which the network is built. What does not fit the tensors, the engine refuses."""
    tokens, depth = config.get("tokens", 1), config.get("depth", 1)
    if not 1 <= tokens <= _MOST_TOKENS or not 1 <= depth <= 16:
        raise CheckpointError(f"it has {tokens} tokens and {depth} layers: expected at most {_MOST_TOKENS} and 16")
    return config
