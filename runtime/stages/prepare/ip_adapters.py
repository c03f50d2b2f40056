"""The IP-Adapters of a request: their networks and the image encoder found and checked, their pictures fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from lorikeet.schema import ImageToImageInput, IPAdapter
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.cross_attention import CrossAttention, cross_attentions
from runtime.checkpoints.read_image_encoder import read_image_encoder
from runtime.checkpoints.read_ip_adapter import check_fits, read_ip_adapter
from runtime.conditioning.ip_scales import ScaleError, layer_scales
from runtime.files.image_codec import as_mask, crop_square, resize
from runtime.plan import IP_MASK, IpAdapterPlan
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.network_file import chosen, find_network_file
from runtime.stages.prepare.pictures import Pictures
from runtime.stages.prepare.size import Size

_IMAGE = "ip_adapter_image_url"
_ENCODER_FOLDER = "image_encoder"  # where diffusers looks for it, beside the adapter
_ENCODER_NAMES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class IpAdapters:
    """`encoder` is None when there are no adapters."""

    adapters: tuple[IpAdapterPlan, ...] = ()
    encoder: Component | None = None

    @property
    def components(self) -> tuple[Component, ...]:
        encoder = () if self.encoder is None else (self.encoder,)
        return (*(adapter.projection for adapter in self.adapters), *encoder)


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for fields that do not fit each other, before any file is fetched."""
    if request.image_encoder_subfolder is not None and request.image_encoder_path is None:
        raise InvalidArgument("image_encoder_subfolder", "expected image_encoder_path with it")
    for index, adapter in enumerate(request.ip_adapter):
        if adapter.insight_face_model_path is not None:
            raise InvalidArgument(
                f"ip_adapter[{index}].insight_face_model_path", "FaceID adapters are not available yet"
            )
        if adapter.scale == 0 and adapter.scale_json is None:
            raise InvalidArgument(
                f"ip_adapter[{index}].scale", "0 has no effect: remove the adapter, or give scale_json"
            )


def named_pictures(request: ImageToImageInput) -> Iterator[tuple[str, str]]:
    """(field, file reference) of each image prompt and mask."""
    for index, adapter in enumerate(request.ip_adapter):
        yield from zip(_image_fields(index, adapter), _images(adapter), strict=True)
        if adapter.ip_adapter_mask_url is not None:
            yield IP_MASK.format(index), adapter.ip_adapter_mask_url


def resolve(request: ImageToImageInput, context: PrepareContext, checkpoint: Checkpoint) -> IpAdapters:
    """Raises InvalidArgument that names the first file that cannot be fetched or does not fit."""
    if not request.ip_adapter:
        return IpAdapters()
    layers = cross_attentions(checkpoint.unet)
    adapters = tuple(_adapter(request, index, context, layers, checkpoint) for index in range(len(request.ip_adapter)))
    encoder = _encoder(request, context)
    for index, adapter in enumerate(adapters):
        _check_fit(index, adapter.projection, encoder)
    return IpAdapters(adapters, encoder)


def fit_pictures(request: ImageToImageInput, pictures: Pictures, size: Size, encoder: Component | None) -> Pictures:
    """Image prompts as CLIP's image processor resizes and crops them; masks at the size of the result."""
    pixels = dict(pictures.pixels)
    for index, adapter in enumerate(request.ip_adapter):
        assert encoder is not None
        for field in _image_fields(index, adapter):
            pixels[field] = crop_square(pixels[field], int(encoder.config.get("image_size", 224)))
        mask = IP_MASK.format(index)
        if mask in pixels:
            pixels[mask] = as_mask(resize(pixels[mask], size.width, size.height, Image.Resampling.LANCZOS))
    return Pictures(pixels)


def _images(adapter: IPAdapter) -> Sequence[str]:
    urls = adapter.ip_adapter_image_url
    return [urls] if isinstance(urls, str) else urls


def _image_fields(index: int, adapter: IPAdapter) -> list[str]:
    field = f"ip_adapter[{index}].{_IMAGE}"
    many = isinstance(adapter.ip_adapter_image_url, list)
    return [f"{field}[{number}]" if many else field for number in range(len(_images(adapter)))]


def _adapter(
    request: ImageToImageInput,
    index: int,
    context: PrepareContext,
    layers: Sequence[CrossAttention],
    checkpoint: Checkpoint,
) -> IpAdapterPlan:
    adapter, place = request.ip_adapter[index], f"ip_adapter[{index}]"
    names = [] if adapter.weight_name is None else [adapter.weight_name]
    found = find_network_file(f"{place}.path", adapter.path, adapter.model_subfolder or "", chosen(*names), context)
    try:
        projection = read_ip_adapter(found.stored)
        check_fits(projection, layers, _text_width(checkpoint))
    except CheckpointError as error:
        raise InvalidArgument(f"{place}.path", str(error)) from error
    scales = adapter.scale if adapter.scale_json is None else adapter.scale_json
    try:
        by_layer = layer_scales(scales, [layer.name for layer in layers])
    except ScaleError as error:
        raise InvalidArgument(f"{place}.scale_json", str(error)) from error
    return IpAdapterPlan(
        projection=projection.model_copy(update={"name": place, "field": f"{place}.path"}),
        images=tuple(_image_fields(index, adapter)),
        scales=by_layer,
        widths=tuple(layer.width for layer in layers),
    )


def _text_width(checkpoint: Checkpoint) -> int:
    """The width of the UNet's text embeddings."""
    widths = (shape[1] for name, shape in checkpoint.unet.shapes.items() if name.endswith(".attn2.to_k.weight"))
    return next(widths)


def _encoder(request: ImageToImageInput, context: PrepareContext) -> Component:
    """The image encoder that the request names, else that of the first adapter's folder, as in diffusers."""
    field, value = "image_encoder_path", request.image_encoder_path
    subfolder = request.image_encoder_subfolder or ""
    if value is None:
        first = request.ip_adapter[0]
        value, subfolder = first.path, "/".join(filter(None, (first.model_subfolder, _ENCODER_FOLDER)))
    given = "image_encoder_weight_name" in request.model_fields_set
    names = (request.image_encoder_weight_name,) if given else _ENCODER_NAMES
    try:
        found = find_network_file(field, value, subfolder, chosen(*names), context)
        encoder = read_image_encoder(found.stored, found.config)
    except CheckpointError as error:
        raise InvalidArgument(field, str(error)) from error
    return encoder.model_copy(update={"field": field})


def _check_fit(index: int, projection: Component, encoder: Component) -> None:
    kind = projection.config["projection"]
    width = encoder.config.get("projection_dim" if kind == "base" else "hidden_size")
    if projection.config["image_embed_dim"] != width:
        raise InvalidArgument(
            f"ip_adapter[{index}].path",
            f"it takes embeddings of {projection.config['image_embed_dim']} values, the image encoder gives {width}: "
            "name the encoder that it was made for in image_encoder_path",
        )
