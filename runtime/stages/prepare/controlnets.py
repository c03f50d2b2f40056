"""The ControlNets of a request: their networks found and checked against the checkpoint, their pictures fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from PIL import Image

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.json_file import parse_json
from runtime.checkpoints.read_controlnet import check_strides, read_controlnet
from runtime.files.image_codec import Pixels, as_mask, resize
from runtime.files.stored_file import FileChangedError
from runtime.plan import CONTROL_IMAGE, CONTROL_MASK, INIT_IMAGE
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.pictures import Pictures
from runtime.stages.prepare.size import Size
from runtime.stages.prepare.variant import Variant


@dataclass(frozen=True)
class ControlNets:
    """The networks in the request's order. `warnings`: of fields that have no effect."""

    networks: tuple[Component, ...]
    warnings: tuple[str, ...]


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for an index of an IP-Adapter that the request does not have."""
    count = len(request.ip_adapter)
    for index, controlnet in enumerate(request.controlnets):
        adapter = controlnet.ip_adapter_index
        if adapter is not None and adapter >= count:
            raise InvalidArgument(
                f"controlnets[{index}].ip_adapter_index",
                f"{adapter} names no element of ip_adapter, which has {count}: expected an index from 0",
            )


def named_pictures(request: ImageToImageInput) -> Iterator[tuple[str, str]]:
    """(field, file reference) of each control image and mask."""
    for index, controlnet in enumerate(request.controlnets):
        yield CONTROL_IMAGE.format(index), controlnet.image_url
        if controlnet.mask_url is not None:
            yield CONTROL_MASK.format(index), controlnet.mask_url


def resolve(request: ImageToImageInput, context: PrepareContext, checkpoint: Checkpoint) -> ControlNets:
    """Raises InvalidArgument that names the first ControlNet that cannot be fetched or does not fit."""
    found = [_network(request, index, context, checkpoint) for index in range(len(request.controlnets))]
    return ControlNets(
        tuple(component for component, _ in found), tuple(warning for _, warnings in found for warning in warnings)
    )


def fit_pictures(request: ImageToImageInput, pictures: Pictures, size: Size) -> Pictures:
    """The pictures at the size of the result, where it is that of a control image.

    As fal resizes them, the init image bilinearly; as diffusers does, control images with Lanczos. Raises
    InvalidArgument for a mask that has another size than its control image.
    """
    if not request.controlnets:
        return pictures
    pixels = dict(pictures.pixels)
    if INIT_IMAGE in pixels:
        pixels[INIT_IMAGE] = resize(pixels[INIT_IMAGE], size.width, size.height, Image.Resampling.BILINEAR)
    for index in range(len(request.controlnets)):
        image, mask = CONTROL_IMAGE.format(index), CONTROL_MASK.format(index)
        if mask in pixels:
            _check_mask(mask, pixels[mask], pixels[image])
            grey = as_mask(pixels[mask])
            pixels[mask] = resize(grey, size.width, size.height, Image.Resampling.LANCZOS)
        pixels[image] = resize(pixels[image], size.width, size.height, Image.Resampling.LANCZOS)
    return Pictures(pixels)


def _network(
    request: ImageToImageInput, index: int, context: PrepareContext, checkpoint: Checkpoint
) -> tuple[Component, list[str]]:
    """The network, and warnings of a variant that its file cannot have."""
    place, controlnet = f"controlnets[{index}]", request.controlnets[index]
    variant = Variant(f"{place}.variant", controlnet.variant)
    hash_file = partial(context.files.file_of, f"{place}.path", context=context.request_files)
    config = _config(f"{place}.config_url", controlnet.config_url, context)
    try:
        source = context.files.controlnet(f"{place}.path", controlnet.path, context.request_files, variant.asked)
        found = variant.read(
            f"{place}.path", source, lambda asked: read_controlnet(source, checkpoint.unet, hash_file, asked, config)
        )
        check_strides(found, checkpoint.vae_scale_factor)
    except (CheckpointError, FileChangedError) as error:
        raise InvalidArgument(f"{place}.path", str(error)) from error
    return found.model_copy(update={"name": place, "field": f"{place}.path"}), variant.warnings()


def _config(field: str, url: str | None, context: PrepareContext) -> dict[str, object] | None:
    if url is None:
        return None
    context.check_cancelled()
    try:
        return parse_json(context.files.config(field, url, context.request_files), "the file")
    except CheckpointError as error:
        raise InvalidArgument(field, str(error)) from error


def _check_mask(field: str, mask: Pixels, image: Pixels) -> None:
    if mask.shape != image.shape:
        found, expected = (f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (mask, image))
        raise InvalidArgument(field, f"{found} pixels: expected the size of the control image, {expected}")
