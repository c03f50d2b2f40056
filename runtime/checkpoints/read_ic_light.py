"""Reads an IC-Light file, which is untrusted: offsets of all weights of a UNet, with a wider first layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lorikeet.protocol.shorten import listed, shorten
from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.layouts import UNET_FIRST, LayoutName, unet_root, views
from runtime.checkpoints.other_models import other_file
from runtime.files.safetensors_file import FLOATS, WeightFileError, read_header
from runtime.files.stored_file import StoredFile

FOREGROUND, WITH_BACKGROUND = 8, 12  # input channels: the latents, the foreground's, and the background's
_FIRST = "conv_in.weight"


class IcLightFile(NamedTuple):
    """Parameter's name -> the stored name of its offset, and its shape."""

    parameters: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def in_channels(self) -> int:
        """Input channels of the UNet with these offsets: `FOREGROUND` or `WITH_BACKGROUND`."""
        return self.shapes[_FIRST][1]


def read_ic_light(stored: StoredFile, unet: Component) -> IcLightFile:
    """Raises CheckpointError: damaged, of another model or dtype, or made for another UNet."""
    try:
        tensors = read_header(stored.path).tensors
        layout: LayoutName = "original" if f"{unet_root(tensors.keys())}{UNET_FIRST}" in tensors else "component"
        held = views(layout, "unet", unet.config, tensors.keys())
        for name in held:
            if tensors[name].dtype not in FLOATS:
                raise CheckpointError(
                    f"{shorten(name)} has dtype {tensors[name].dtype}; expected one of {', '.join(FLOATS)}"
                )
        found = {view.name: (name, view.shape(tensors[name].shape)) for name, parts in held.items() for view in parts}
        expected = unet.shapes
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error
    file = IcLightFile(
        {name: key for name, (key, _) in found.items()}, {name: shape for name, (_, shape) in found.items()}
    )
    first = file.shapes.get(_FIRST, ())
    if len(first) != 4 or first[1] not in (FOREGROUND, WITH_BACKGROUND):
        what = other_file(tensors.keys())
        hint = f"it is {what}" if what else f"expected {_FIRST} with {FOREGROUND} or {WITH_BACKGROUND} input channels"
        raise CheckpointError(f"it is no IC-Light model: {hint}")
    own = {**file.shapes, _FIRST: (first[0], expected[_FIRST][1], *first[2:])}
    if other := [name for name, shape in own.items() if expected.get(name) != shape]:
        raise CheckpointError(
            f"it does not fit the checkpoint's UNet in {len(other)} tensors, as {listed(other)}: IC-Light is made for "
            "SD 1.5"
        )
    return file
