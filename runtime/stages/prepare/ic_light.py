"""IC-Light: its weights found and checked against the UNet, and its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_ic_light import WITH_BACKGROUND, ic_light_warnings, read_ic_light
from runtime.files.image_codec import resize
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError
from runtime.plan import BACKGROUND, FOREGROUND, IcLightPlan
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.pictures import Pictures
from runtime.stages.prepare.size import Size

FIELD = "ic_light_model_url"


@dataclass(frozen=True)
class IcLight:
    """Its weights; None: the request has none. `warnings`: how their file differs from the published ones."""

    plan: IcLightPlan | None = None
    warnings: tuple[str, ...] = ()


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for pictures without the model, or the model without its picture."""
    if request.ic_light_model_url is None:
        if name := next((name for name in (FOREGROUND, BACKGROUND) if getattr(request, name) is not None), None):
            raise InvalidArgument(name, f"expected {FIELD} with it")
    elif request.ic_light_image_url is None:
        raise InvalidArgument(FOREGROUND, f"missing: {FIELD} relights this picture")


def named_pictures(request: ImageToImageInput) -> Iterator[tuple[str, str]]:
    """(field, file reference) of the foreground and the background."""
    for name in (FOREGROUND, BACKGROUND):
        if (value := getattr(request, name)) is not None:
            yield name, value


def resolve(request: ImageToImageInput, context: PrepareContext, checkpoint: Checkpoint) -> IcLight:
    """Raises InvalidArgument that names the field."""
    if request.ic_light_model_url is None:
        return IcLight()
    context.check_cancelled()
    try:
        stored = context.files.lora(FIELD, request.ic_light_model_url, context.request_files)
        file = read_ic_light(stored, checkpoint.unet)
        warnings = ic_light_warnings(stored, file, checkpoint.unet)
    except (CheckpointError, WeightFileError, FileChangedError) as error:
        raise InvalidArgument(FIELD, str(error)) from error
    takes_background, has_background = (
        file.in_channels == WITH_BACKGROUND,
        request.ic_light_model_background_image_url is not None,
    )
    if takes_background != has_background:
        wanted = "it takes a background, which is missing" if takes_background else "the model takes no background"
        raise InvalidArgument(BACKGROUND, f"{wanted}: it has {file.in_channels} input channels")
    plan = IcLightPlan(
        path=stored.path, digest=stored.digest, fingerprint=stored.fingerprint, in_channels=file.in_channels
    )
    return IcLight(plan, tuple(f"{FIELD}: {warning}" for warning in warnings))


def fit_pictures(request: ImageToImageInput, pictures: Pictures, size: Size) -> Pictures:
    """The foreground and the background at the size of the result."""
    fitted = {
        name: resize(pictures.pixels[name], size.width, size.height, Image.Resampling.LANCZOS)
        for name, _ in named_pictures(request)
    }
    return Pictures({**pictures.pixels, **fitted})
