"""Reads an IC-Light file, which is untrusted: offsets of all weights of a UNet, with a wider first layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lorikeet.protocol.shorten import listed, shorten
from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.layouts import UNET_FIRST, LayoutName, unet_root, views
from runtime.checkpoints.other_models import other_file
from runtime.files.safetensors_file import FLOATS, SafetensorsFile, WeightFileError, read_header
from runtime.files.safetensors_header import TensorInfo
from runtime.files.stored_file import StoredFile

FOREGROUND, WITH_BACKGROUND = 8, 12  # input channels: the latents, the foreground's, and the background's
_FIRST = "conv_in.weight"
_NORM = "conv_norm_out.weight"  # training changes the scales of a norm little: offsets are far smaller than the scales
_OF_LCM = "time_embedding.cond_proj.weight"  # of UNets distilled for LCM, whose other parameters are those of SD 1.5
_OF_A_CHECKPOINT = ("first_stage_model.", "cond_stage_model.", "conditioner.")
_EXPECTED = "expected the offsets of IC-Light, which are added to the checkpoint's UNet, and nothing else"


class IcLightFile(NamedTuple):
    """Parameter's name -> the stored name of its offset, and its shape."""

    parameters: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def in_channels(self) -> int:
        """Input channels of the UNet with these offsets: `FOREGROUND` or `WITH_BACKGROUND`."""
        return self.shapes[_FIRST][1]


def read_ic_light(stored: StoredFile, unet: Component) -> IcLightFile:
    """Raises CheckpointError: damaged, a checkpoint, of another model or dtype, or made for another UNet."""
    try:
        tensors = read_header(stored.path).tensors
        file = _offsets(tensors, unet)
        _check_kind(file, tensors)
        _check_fit(file, unet.shapes)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    return file


def ic_light_warnings(stored: StoredFile, file: IcLightFile, unet: Component) -> list[str]:
    """How the file differs from the published ones, which hold an offset of each parameter of a UNet of SD 1.5.

    Raises CheckpointError, WeightFileError and FileChangedError.
    """
    found, used = [], set(file.parameters.values())
    if missing := [name for name in unet.shapes if name not in file.parameters and name != _OF_LCM]:
        found.append(f"it lacks {len(missing)} offsets, as of {listed(missing)}")
    if other := [name for name in read_header(stored.path).tensors if name not in used]:
        found.append(f"ignored {len(other)} tensors, which are no offsets of the UNet: {listed(other)}")
    if _NORM in file.parameters and _size(unet, _NORM) < 2 * _norm(
        stored.path, stored.fingerprint, file.parameters[_NORM]
    ):
        found.append(f"it looks like a whole UNet: {_EXPECTED}")
    return found


def _offsets(tensors: Mapping[str, TensorInfo], unet: Component) -> IcLightFile:
    layout: LayoutName = "original" if f"{unet_root(tensors.keys())}{UNET_FIRST}" in tensors else "component"
    held = views(layout, "unet", unet.config, tensors.keys())
    for name in held:
        if tensors[name].dtype not in FLOATS:
            raise CheckpointError(
                f"{shorten(name)} has dtype {tensors[name].dtype}; expected one of {', '.join(FLOATS)}"
            )
    found = {view.name: (name, view.shape(tensors[name].shape)) for name, parts in held.items() for view in parts}
    return IcLightFile(
        {name: key for name, (key, _) in found.items()}, {name: shape for name, (_, shape) in found.items()}
    )


def _check_kind(file: IcLightFile, tensors: Collection[str]) -> None:
    if other := [name for name in tensors if name.startswith(_OF_A_CHECKPOINT)]:
        raise CheckpointError(f"it is a checkpoint, with {listed(other)}: {_EXPECTED}")
    first = file.shapes.get(_FIRST, ())
    if len(first) != 4 or first[1] not in (FOREGROUND, WITH_BACKGROUND):
        what = other_file(tensors)
        hint = f"it is {what}" if what else f"expected {_FIRST} with {FOREGROUND} or {WITH_BACKGROUND} input channels"
        raise CheckpointError(f"it is no IC-Light model: {hint}")


def _check_fit(file: IcLightFile, expected: Mapping[str, tuple[int, ...]]) -> None:
    first = file.shapes[_FIRST]
    own = {**file.shapes, _FIRST: (first[0], expected[_FIRST][1], *first[2:])}
    if other := [name for name, shape in own.items() if expected.get(name) != shape]:
        raise CheckpointError(
            f"it does not fit the checkpoint's UNet in {len(other)} tensors, as {listed(other)}: IC-Light is made for "
            "SD 1.5"
        )


def _size(unet: Component, parameter: str) -> float:
    """The Euclidean norm of a parameter of the UNet."""
    for file in unet.files:
        names = read_header(file.path).tensors.keys()
        for name, held in unet.views(names).items():
            if any(view.name == parameter for view in held):
                return _norm(file.path, file.fingerprint, name)
    raise CheckpointError(f"the checkpoint's UNet lacks {parameter}")


def _norm(path: Path, fingerprint: str, name: str) -> float:
    return float(np.linalg.norm(SafetensorsFile(path, fingerprint, [name]).read_floats(name)))
