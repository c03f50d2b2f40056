"""Reads a diffusers-format folder into a Checkpoint. It is as hostile as its request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime.checkpoints.checkpoint import Checkpoint, Component, Role, WeightFile
from runtime.checkpoints.checks import CheckpointError, VariantError, check_unet, check_vae
from runtime.checkpoints.configs import check_config
from runtime.checkpoints.reader import Reader
from runtime.files.located import Folder
from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import StoredFile

Digest = Callable[[Path], StoredFile]

_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}


def read_folder(folder: Folder, digest: Digest, variant: str | None = None) -> Checkpoint:
    """The checkpoint in a folder. `digest` hashes a file, or remembers its hash.

    `variant` picks `….fp16.safetensors` and the like; a component without them gives its plain files, as in diffusers.

    Raises CheckpointError: something missing, damaged, leading out of the folder, or of an architecture not served;
    VariantError: no component has the variant.
    """
    reader = _Components(folder, digest, variant)
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
        if variant and not reader.has_variant:
            raise VariantError(f"the checkpoint has no weights of the variant {variant!r}")
        check_unet(unet, encoders)
        check_vae(vae)
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


def read_unet_folder(folder: Folder, digest: Digest, variant: str | None = None) -> Component:
    """The UNet of a folder: its own files, or those of its folder `unet`. Raises CheckpointError."""
    reader = _Components(folder, digest, variant)
    return reader.component("unet", "unet/" if reader.has("unet") else "")


class _Components(Reader):
    """Reads the components of one folder."""

    def __init__(self, folder: Folder, digest: Digest, variant: str | None) -> None:
        super().__init__(folder)
        self._digest, self._variant = digest, variant
        self.has_variant = False  # whether some component did have it

    def component(self, name: Role, place: str | None = None) -> Component:
        """The component of that name in the folder `place` (`unet/`; by default, its own name)."""
        place = f"{name}/" if place is None else place
        config = self.json(f"{place}config.json")
        architectures = config.get("architectures")
        classes = [config.get("_class_name"), *(architectures if isinstance(architectures, list) else [])]
        if not any(known in classes for known in _CLASSES[name]):
            raise CheckpointError(f"{place}config.json is of no {' or '.join(_CLASSES[name])}")
        check_config(name, config)
        stored = [self._digest(self.file(f"{place}{file}")) for file in self._weight_files(name, place)]
        files = tuple(WeightFile(path=file.path, digest=file.digest, stamp=file.stamp) for file in stored)
        return Component(role=name, config=config, files=files)

    def _weight_files(self, name: str, place: str) -> list[str]:
        """One file, or the shards that an index names; of the variant where there are such."""
        stem = _STEMS.get(name, "model")
        if self._variant:
            single, index = f"{stem}.{self._variant}.safetensors", f"{stem}.safetensors.index.{self._variant}.json"
            if self.has(place + single) or self.has(place + index):
                self.has_variant = True
                return self._shards(place + index) if self.has(place + index) else [single]
        index = f"{place}{stem}.safetensors.index.json"
        return self._shards(index) if self.has(index) else [f"{stem}.safetensors"]

    def _shards(self, index: str) -> list[str]:
        shards = self.json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
            raise CheckpointError(f"{index} has no weight_map")
        return sorted(set(shards.values()))
