"""IC-Light files: offsets of every parameter of the UNet and nothing else, in both namings; others are refused."""

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
from runtime.checkpoints.read_ic_light import FOREGROUND, WITH_BACKGROUND, read_ic_light
from runtime.files.stored_file import FileChangedError, file_fingerprint
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


REFUSED: dict[str, tuple[Callable[[Path], Tensors], str]] = {
    "checkpoint": (checkpoint, r"it has \d+ other tensors, as cond_stage_model\..* expected the offsets of IC-Light"),
    "unet_alone": (unet_alone, "it is a whole UNet: expected the offsets"),
    "foreign_tensor": (
        lambda tiny: {**ldm(tiny), "foreign": np.zeros(1, np.float32)},
        "it has 1 other tensors, as foreign: expected the offsets",
    ),
    "one_missing": (
        lambda tiny: without(ldm(tiny), NORM),
        "it is incomplete: it lacks 1 offsets, as of conv_norm_out.weight",
    ),
    "first_layer_alone": (
        lambda tiny: {
            **{name: tensor for name, tensor in ldm(tiny).items() if ".input_blocks.0." in name},
            "foreign": np.zeros(1, np.float32),
        },
        r"it is incomplete: it lacks \d+ offsets, as of .* and \d+ more",
    ),
    "controlnet": (lambda tiny: load_file(tiny / "controlnets/sd15_original.safetensors"), "it is a ControlNet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_holds_no_offsets_or_not_all_is_refused(
    tiny: Path, sd15: Checkpoint, tmp_path: Path, name: str
) -> None:
    make, message = REFUSED[name]
    save_file({key: np.ascontiguousarray(tensor) for key, tensor in make(tiny).items()}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_ic_light(digest(tmp_path / "a.safetensors"), sd15.unet)


def test_a_file_that_was_changed_is_noticed(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(ldm(tiny), path)
    stored = replace(digest(path), fingerprint=file_fingerprint(path))
    save_file({**ldm(tiny), NORM: np.zeros_like(ldm(tiny)[NORM])}, path)
    with pytest.raises(FileChangedError):
        read_ic_light(stored, sd15.unet)
