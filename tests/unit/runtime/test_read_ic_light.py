"""IC-Light files: offsets of every parameter of the UNet, in all namings; what others give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component, WeightFile
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_ic_light import FOREGROUND, WITH_BACKGROUND, ic_light_warnings, read_ic_light
from runtime.files.stored_file import FileChangedError, StoredFile, file_fingerprint
from tests.unit.runtime.tiny_checkpoints import digest

Tensors = dict[str, npt.NDArray[np.float32]]
UNET = "model.diffusion_model."
NORM = "diffusion_model.out.0.weight"


@pytest.mark.parametrize(
    ("name", "channels"), [("fc", FOREGROUND), ("fbc", WITH_BACKGROUND), ("fc_ldm", FOREGROUND), ("bare", FOREGROUND)]
)
def test_the_published_namings_are_read(tiny: Path, sd15: Checkpoint, tmp_path: Path, name: str, channels: int) -> None:
    """`bare`: as comfy.diffusers_convert writes it, without a prefix."""
    path = tiny / "ic_light" / f"{name}.safetensors"
    if name == "bare":
        tensors = {key.removeprefix("diffusion_model."): tensor for key, tensor in ldm(tiny).items()}
        path = tmp_path / "a.safetensors"
        save_file(tensors, path)
    file = read_ic_light(digest(path), sd15.unet)
    assert file.in_channels == channels
    assert file.parameters.keys() == sd15.unet.shapes.keys()
    assert set(file.parameters.values()) == load_file(path).keys()


def test_a_unet_of_lcm_takes_the_offsets_of_sd15(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    """Its additional parameter has no offset in any published file."""
    (weights,) = sd15.unet.files
    condition = {"time_embedding.cond_proj.weight": np.ones((16, 4), np.float32)}
    save_file({**load_file(weights.path), **condition}, tmp_path / "unet.safetensors")
    stored = digest(tmp_path / "unet.safetensors")
    distilled = Component(
        role="unet", config=sd15.unet.config, files=(WeightFile(path=stored.path, digest=stored.digest),)
    )
    assert condition.keys() <= distilled.shapes.keys()
    assert (
        read_ic_light(digest(tiny / "ic_light/fc.safetensors"), distilled).parameters.keys() == sd15.unet.shapes.keys()
    )


def write(folder: Path, tensors: Tensors) -> StoredFile:
    save_file({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}, folder / "a.safetensors")
    return digest(folder / "a.safetensors")


def ldm(tiny: Path) -> Tensors:
    return load_file(tiny / "ic_light" / "fc_ldm.safetensors")


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def checkpoint(tiny: Path) -> Tensors:
    """A whole checkpoint whose UNet has 8 input channels, such as one of InstructPix2Pix."""
    tensors = load_file(tiny / "single" / "sd15.safetensors")
    first = f"{UNET}input_blocks.0.0.weight"
    return {**tensors, first: np.concatenate([tensors[first]] * 2, 1)}


def unet_alone(tiny: Path) -> Tensors:
    return {name: tensor for name, tensor in checkpoint(tiny).items() if name.startswith(UNET)}


WARNED: dict[str, tuple[Callable[[Path], Tensors], str]] = {
    "unet_alone": (unet_alone, "it looks like a whole UNet: expected the offsets of IC-Light"),
    "foreign_tensor": (
        lambda tiny: {**ldm(tiny), "foreign": np.zeros(1, np.float32)},
        "ignored 1 tensors, which are no offsets of the UNet: foreign",
    ),
    "one_missing": (lambda tiny: without(ldm(tiny), NORM), "it lacks 1 offsets, as of conv_norm_out.weight"),
}


@pytest.mark.parametrize("name", WARNED)
def test_a_file_unlike_the_published_ones_gives_a_warning(
    tiny: Path, sd15: Checkpoint, tmp_path: Path, name: str
) -> None:
    make, expected = WARNED[name]
    stored = write(tmp_path, make(tiny))
    (warning,) = ic_light_warnings(stored, read_ic_light(stored, sd15.unet), sd15.unet)
    assert warning.startswith(expected)


@pytest.mark.parametrize("name", ["fc", "fbc", "fc_ldm"])
def test_a_published_file_gives_none(tiny: Path, sd15: Checkpoint, name: str) -> None:
    stored = digest(tiny / "ic_light" / f"{name}.safetensors")
    assert not ic_light_warnings(stored, read_ic_light(stored, sd15.unet), sd15.unet)


REFUSED: dict[str, tuple[Callable[[Path], Tensors], str]] = {
    "checkpoint": (checkpoint, r"it is a checkpoint, with cond_stage_model\..* expected the offsets of IC-Light"),
    "controlnet": (lambda tiny: load_file(tiny / "controlnets/sd15_original.safetensors"), "it is a ControlNet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_another_kind_is_refused(tiny: Path, sd15: Checkpoint, tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    stored = write(tmp_path, make(tiny))
    with pytest.raises(CheckpointError, match=message):
        read_ic_light(stored, sd15.unet)


def test_a_file_that_was_changed_is_noticed(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(ldm(tiny), path)
    stored = replace(digest(path), fingerprint=file_fingerprint(path))
    save_file({**ldm(tiny), NORM: np.zeros_like(ldm(tiny)[NORM])}, path)
    with pytest.raises(FileChangedError):
        ic_light_warnings(stored, read_ic_light(stored, sd15.unet), sd15.unet)
