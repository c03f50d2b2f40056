"""The architectures of a checkpoint's networks, read from configurations and headers. No weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.errors import ExportError
from lorikeet.protocol.shorten import listed
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.ip_adapter_names import projection_kind
from runtime.checkpoints.json_file import read_json
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.checkpoints.read_image_encoder import vision_config
from runtime.checkpoints.read_ip_adapter import read_ip_adapter
from runtime.files.located import Folder, SingleFile
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.stored_file import StoredFile
from runtime.networks.architecture import Architecture, ArchitectureError, NetworkKind, architecture_of

_CONFIG = "config.json"
_SINGLE: dict[str, NetworkKind] = {
    "ControlNetModel": "controlnet",
    "CLIPVisionModelWithProjection": "image_encoder",
    "StableDiffusionSafetyChecker": "safety_checker",
}
_EVERYWHERE = Path("/")  # a user's own checkpoint may have links to any folder


def read_architectures(path: Path, in_channels: int | None = None) -> dict[str, Architecture]:
    """Name -> architecture, for a checkpoint, the file of an IP-Adapter, or the folder of one other network.

    in_channels: input channels of the UNet instead of the checkpoint's own, for a full change such as IC-Light.
    Raises ExportError.
    """
    if not path.exists():
        raise ExportError(f"{path}: not found; expected a diffusers folder or a .safetensors file")
    try:
        path = path.resolve()
        if (path / _CONFIG).is_file() and not (path / "unet").exists():
            return _single(read_json(path / _CONFIG, _CONFIG))
        if path.is_file() and projection_kind(read_header(path).tensors.keys()):
            return {"image_projection": architecture_of("image_projection", read_ip_adapter(_unhashed(path)).config)}
        source = Folder(path, _EVERYWHERE) if path.is_dir() else SingleFile(_unhashed(path), _EVERYWHERE)
        checkpoint = read_checkpoint(source, _unhashed)
        changes = {} if in_channels is None else {"in_channels": in_channels}
        return {
            "unet": architecture_of("unet", checkpoint.unet.config | changes),
            "vae_encoder": architecture_of("vae_encoder", checkpoint.vae.config),
            "vae_decoder": architecture_of("vae_decoder", checkpoint.vae.config),
            **{encoder.name: architecture_of("text_encoder", encoder.config) for encoder in checkpoint.text_encoders},
        }
    except (CheckpointError, ArchitectureError, WeightFileError) as error:
        raise ExportError(f"{path}: {error}") from error


def _single(config: dict[str, Any]) -> dict[str, Architecture]:
    """The network of a folder with one: a ControlNet, an image encoder, or a safety checker."""
    classes = config.get("architectures")
    both = [config.get("_class_name"), *(classes if isinstance(classes, list) else [classes])]
    names = [name for name in both if name is not None]
    for name, kind in _SINGLE.items():
        if name in names:
            return {kind: architecture_of(kind, vision_config(config))}
    found = f"the class {listed(str(name) for name in names)}" if names else "no class"
    raise CheckpointError(f"{_CONFIG} names {found}; expected {' or '.join(_SINGLE)}")


def _unhashed(path: Path) -> StoredFile:
    """A weight file without its digest: an architecture does not depend on it, and hashing takes long."""
    return StoredFile(path, "")
