"""Reads a diffusers-format folder into a Checkpoint. It is as hostile as its request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.checkpoints.checkpoint import Checkpoint, Component, WeightFile
from runtime.files.sources import Folder
from runtime.files.store import StoredFile
from runtime.files.tensors import WeightFileError

_MAX_JSON = 8 << 20
_MAX_DEPTH = 32
_MAX_LAYERS = 100
_MAX_NUMBER = 1 << 20
_SHOWN = 100
_MAX_LEVELS = 6  # of a VAE; each halves the picture
_MAX_FACTOR = 1000.0
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}


class CheckpointError(ValueError):
    """The folder is no checkpoint that can be served; the message is fit for the client."""


def read_folder(folder: Folder, digest: Callable[[Path], StoredFile]) -> Checkpoint:
    """The checkpoint in a folder. `digest` hashes a file, or remembers its hash.

    Raises CheckpointError: something missing, damaged, leading out of the folder, or of an architecture not served.
    """
    reader = _Reader(folder, digest)
    try:
        unet, vae = reader.component("unet"), reader.component("vae")
        is_xl = "add_embedding.linear_1.weight" in unet.shapes
        if not (folder.path / "text_encoder").is_dir():
            raise CheckpointError("it has no text_encoder (an SDXL refiner is not a base model)")
        encoders = [reader.component("text_encoder")]
        tokenizers = [reader.tokenizer("tokenizer")]
        if is_xl:
            encoders.append(reader.component("text_encoder_2"))
            tokenizers.append(reader.tokenizer("tokenizer_2"))
        _check_architecture(unet, encoders)
        _check_vae(vae)
        _check_vae(vae)
        return Checkpoint(
            kind="sdxl" if is_xl else "sd",
            unet=unet,
            vae=vae,
            text_encoders=tuple(encoders),
            tokenizers=tuple(tokenizers),
            scheduler=reader.json("scheduler/scheduler_config.json"),
        )
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error


class _Reader:
    """Reads single files of one folder, none of which may lead out of it."""

    def __init__(self, folder: Folder, digest: Callable[[Path], StoredFile]) -> None:
        self._folder, self._digest = folder, digest

    def inside(self, name: str) -> Path:
        """Where a name leads: a place in the folder, whether something is there or not."""
        try:
            path = (self._folder.path / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte
            raise CheckpointError(f"{name[:_SHOWN]} cannot be read") from error
        if not path.is_relative_to(self._folder.inside):
            raise CheckpointError(f"{name[:_SHOWN]} leads out of the folder")
        return path

    def file(self, name: str) -> Path:
        path = self.inside(name)
        try:
            found = path.is_file()
        except OSError as error:  # too long a name
            raise CheckpointError(f"{name[:_SHOWN]} cannot be read") from error
        if not found:
            raise CheckpointError(f"it has no {name[:_SHOWN]}")
        return path

    def json(self, name: str) -> dict[str, Any]:
        path = self.file(name)
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{name} is too large for a configuration")
        try:
            value = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise CheckpointError(f"{name} is not JSON") from error
        if not isinstance(value, dict):
            raise CheckpointError(f"{name} is not a JSON object")
        if _is_deep(value):
            raise CheckpointError(f"{name} is nested deeper than {_MAX_DEPTH} levels")
        return value

    def component(self, name: str) -> Component:
        config = self.json(f"{name}/config.json")
        architectures = config.get("architectures")
        classes = [config.get("_class_name"), *(architectures if isinstance(architectures, list) else [])]
        if not any(known in classes for known in _CLASSES[name]):
            raise CheckpointError(f"{name}/config.json is of no {' or '.join(_CLASSES[name])}")
        _check_sizes(name, config)
        stored = [self._digest(self.file(f"{name}/{file}")) for file in self._weight_files(name)]
        files = tuple(WeightFile(path=file.path, digest=file.digest) for file in stored)
        return Component(name=name, config=config, files=files)

    def tokenizer(self, name: str) -> Path:
        self.file(f"{name}/vocab.json"), self.file(f"{name}/merges.txt")
        folder = self.inside(name)
        for file in folder.iterdir():
            self.inside(f"{name}/{file.name}")
        return folder

    def _weight_files(self, name: str) -> list[str]:
        """One file, or the shards that an index names."""
        stem = _STEMS.get(name, "model")
        if not (self._folder.path / name / f"{stem}.safetensors.index.json").exists():
            return [f"{stem}.safetensors"]
        shards = self.json(f"{name}/{stem}.safetensors.index.json").get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
            raise CheckpointError(f"{name}/{stem}.safetensors.index.json has no weight_map")
        return sorted(set(shards.values()))


def _check_sizes(name: str, config: dict[str, Any]) -> None:
    """Refuse a configuration whose network would take ages, or all memory, to lay out."""
    for key, value in config.items():
        most = _MAX_LAYERS if "layers" in key else _MAX_NUMBER
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > _MAX_LAYERS or any(isinstance(number, int) and abs(number) > most for number in numbers):
            raise CheckpointError(f"{name}/config.json has a {key[:_SHOWN]} that is too large")


def _check_architecture(unet: Component, encoders: list[Component]) -> None:
    shapes = unet.shapes
    if "conv_in.weight" not in shapes:
        raise CheckpointError("unet has no conv_in.weight: not a Stable Diffusion UNet")
    if (channels := shapes["conv_in.weight"][1]) != 4:
        raise CheckpointError(f"the UNet takes {channels} channels; checkpoints with 4 are served")
    if "time_embedding.cond_proj.weight" in shapes:
        raise CheckpointError("LCM-distilled UNets (timestep_cond) are not available yet")
    size = unet.config.get("sample_size")
    if not all(_is_count(side) for side in (size if isinstance(size, list) and len(size) == 2 else [size or 1])):
        raise CheckpointError("unet/config.json has a sample_size that is no size")
    norm = "text_model.final_layer_norm.weight"
    widths = [encoder.shapes[norm][0] for encoder in encoders if norm in encoder.shapes]
    crossed = [shape[-1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")]
    if not crossed or sum(widths) != crossed[0]:
        raise CheckpointError(f"the UNet expects text of width {crossed[:1]}; the text encoders give {widths}")


def _check_vae(vae: Component) -> None:
    if vae.shapes.get("decoder.conv_in.weight", (0, 0))[1] != 4:
        raise CheckpointError("the VAE is none of Stable Diffusion: its latents have not 4 channels")
    widths = vae.config.get("block_out_channels")
    if not isinstance(widths, list) or not 1 <= len(widths) <= _MAX_LEVELS or not all(map(_is_count, widths)):
        raise CheckpointError("vae/config.json has no usable block_out_channels")
    factor = vae.config.get("scaling_factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < _MAX_FACTOR:
        raise CheckpointError("vae/config.json has a scaling_factor that is no factor")
    for name in ("latents_mean", "latents_std", "shift_factor"):
        if vae.config.get(name) is not None:
            raise CheckpointError(f"a VAE with {name} is not served")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level if isinstance(node, dict | list) for child in _children(node)]
    return bool(level)


def _children(node: dict[str, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node
