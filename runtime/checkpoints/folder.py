"""Reads a diffusers-format folder, which is untrusted, into a Checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.checkpoint import Checkpoint, Component, Role, WeightFile, kind_of
from runtime.checkpoints.checks import CheckpointError, VariantError, check_unet, check_vae
from runtime.checkpoints.folder_reader import FolderReader
from runtime.checkpoints.missing_files import missing_components, missing_weights
from runtime.checkpoints.network_config import check_config
from runtime.checkpoints.other_controlnets import other_class
from runtime.checkpoints.scheduler_config import with_indexed_class
from runtime.files.located import Folder
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.stored_file import StoredFile

HashFile = Callable[[Path], StoredFile]  # hashes a file, or recalls its hash

_INDEX = "model_index.json"
_STEMS = dict.fromkeys(("unet", "vae", "controlnet"), "diffusion_pytorch_model")
_PICKLE = ".bin"
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "controlnet": ("ControlNetModel",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}


def read_folder(folder: Folder, hash_file: HashFile, variant: str | None = None) -> Checkpoint:
    """The checkpoint in a folder.

    `variant` selects files such as `….fp16.safetensors`; a component without them has its plain files read, as in
    diffusers. Raises CheckpointError: a file is missing, damaged or outside the folder, or the architecture is not
    served. Raises VariantError: no component has the variant.
    """
    reader = _Components(folder, hash_file, variant)
    try:
        if not reader.has("unet"):
            raise CheckpointError(missing_components(reader.names("")))
        unet, vae = reader.component("unet"), reader.component("vae")
        kind = kind_of(unet)
        if not (folder.path / "text_encoder").is_dir():
            raise CheckpointError("its folder text_encoder is missing (an SDXL refiner is not a base model)")
        encoders = [reader.component("text_encoder")]
        tokenizers = [reader.tokenizer("tokenizer")]
        if kind == "sdxl":
            encoders.append(reader.component("text_encoder_2"))
            tokenizers.append(reader.tokenizer("tokenizer_2"))
        reader.check_variant("checkpoint")
        check_unet(unet, encoders)
        check_vae(vae)
        return Checkpoint(
            kind=kind,
            unet=unet,
            vae=vae,
            text_encoders=tuple(encoders),
            tokenizers=tuple(tokenizers),
            scheduler=reader.scheduler(),
        )
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error


def read_unet_folder(folder: Folder, hash_file: HashFile, variant: str | None = None) -> Component:
    """The UNet of a folder: its own files, or those of its folder `unet`.

    Raises CheckpointError. Raises VariantError: it lacks the variant.
    """
    reader = _Components(folder, hash_file, variant)
    found = reader.component("unet", "unet/" if reader.has("unet") else "")
    reader.check_variant("UNet")
    return found


def read_controlnet_folder(folder: Folder, hash_file: HashFile, variant: str | None = None) -> Component:
    """The ControlNet of a folder: its own files, or those of its folder `controlnet`.

    `hash_file` converts a `.bin` to .safetensors. Raises CheckpointError. Raises VariantError: it lacks the variant.
    """
    reader = _Components(folder, hash_file, variant)
    place = "controlnet/" if reader.has("controlnet/config.json") else ""
    if what := other_class(reader.json(f"{place}config.json").get("_class_name")):
        raise CheckpointError(what)
    found = reader.component("controlnet", place)
    reader.check_variant("ControlNet")
    return found


class _Components(FolderReader):
    """Reads the components of one folder."""

    def __init__(self, folder: Folder, hash_file: HashFile, variant: str | None) -> None:
        super().__init__(folder)
        self._hash_file, self._variant = hash_file, variant
        self._has_variant = False  # whether any component has files of the variant

    def component(self, name: Role, place: str | None = None) -> Component:
        """The component of that name in the folder `place` (`unet/`; by default, its own name)."""
        place = f"{name}/" if place is None else place
        config = self.json(f"{place}config.json")
        architectures = config.get("architectures")
        classes = [config.get("_class_name"), *(architectures if isinstance(architectures, list) else [])]
        if not any(known in classes for known in _CLASSES[name]):
            raise CheckpointError(f"{place}config.json names another class: expected {' or '.join(_CLASSES[name])}")
        check_config(name, config)
        paths = [self._weights(place, file) for file in self._weight_files(name, place)]
        stored = [self._hash_file(path) for path in paths]
        files = tuple(WeightFile(path=file.path, digest=file.digest, fingerprint=file.fingerprint) for file in stored)
        return Component(role=name, config=config, files=files)

    def check_variant(self, what: str) -> None:
        """Raises VariantError if none of the components that were read has files of the variant."""
        if self._variant and not self._has_variant:
            raise VariantError(f"the {what} has no weights of the variant {self._variant!r}")

    def scheduler(self) -> dict[str, Any]:
        """The scheduler's configuration, with the class that the folder's index names."""
        index = self.json(_INDEX) if self.has(_INDEX) else {}
        return with_indexed_class(self.json("scheduler/scheduler_config.json"), index)

    def _weights(self, place: str, name: str) -> Path:
        """A weight file with a readable header. Files are checked before they are hashed, which takes much longer."""
        path = self.file(place + name)
        if name.endswith(_PICKLE):  # checked when it is converted
            return path
        try:
            read_header(path)
        except WeightFileError as error:
            raise CheckpointError(f"{shorten(place + name, 100)}: {error}") from error
        return path

    def _weight_files(self, name: str, place: str) -> list[str]:
        """One file, or the shards that an index names; those of the variant if there are any."""
        stem = _STEMS.get(name, "model")
        if self._variant:
            single, index = f"{stem}.{self._variant}.safetensors", f"{stem}.safetensors.index.{self._variant}.json"
            if self.has(place + single) or self.has(place + index):
                self._has_variant = True
                return self._shards(place + index) if self.has(place + index) else [single]
            if name == "controlnet" and self.has(f"{place}{stem}.{self._variant}{_PICKLE}"):
                self._has_variant = True
                return [f"{stem}.{self._variant}{_PICKLE}"]
        single, index = f"{stem}.safetensors", f"{place}{stem}.safetensors.index.json"
        if self.has(index):
            return self._shards(index)
        self.inside(place + single)  # a link that leads out of the folder is not missing
        if not self.has(place + single):
            # diffusers wrote it before .safetensors: many repositories of ControlNets have no other.
            if name == "controlnet" and self.has(f"{place}{stem}{_PICKLE}"):
                return [f"{stem}{_PICKLE}"]
            raise CheckpointError(missing_weights(place, stem, self.names(place)))
        return [single]

    def _shards(self, index: str) -> list[str]:
        shards = self.json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
            raise CheckpointError(f"{index} has no weight_map: expected an object of tensor names and file names")
        return sorted(set(shards.values()))
