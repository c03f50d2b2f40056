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
from runtime.files.crop_square import crop_square
from runtime.files.image_codec import as_mask, resize
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError, StoredFile
from runtime.lora.adapter_lora import has_lora
from runtime.lora.known_loras import lora_summary
from runtime.lora.lora_error import LoraError
from runtime.plan import IP_MASK, FacePackPlan, IpAdapterPlan, LoraPlan
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare import face_pack
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.network_file import chosen, find_network_file, warn_of_unread_names
from runtime.stages.prepare.pictures import Pictures, check_pixels
from runtime.stages.prepare.size import Size

_IMAGE = "ip_adapter_image_url"
_ENCODER_FOLDER = "image_encoder"  # where diffusers looks for it, beside the adapter
_ENCODER_NAMES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class IpAdapters:
    """`encoder` is None when no adapter needs it. `loras`: those in the adapters' files. `warnings`: of fields that
    have no effect."""

    adapters: tuple[IpAdapterPlan, ...] = ()
    encoder: Component | None = None
    loras: tuple[LoraPlan, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def components(self) -> tuple[Component, ...]:
        encoder = () if self.encoder is None else (self.encoder,)
        return (*(adapter.projection for adapter in self.adapters), *encoder)

    @property
    def pack_digests(self) -> dict[str, str]:
        """Field and number of each file of the InsightFace packs -> its digest."""
        packs = (adapter.face_pack for adapter in self.adapters if adapter.face_pack)
        return {f"{pack.field}[{number}]": file.digest for pack in packs for number, file in enumerate(pack.files)}


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for fields that do not fit each other, before any file is fetched."""
    if request.image_encoder_subfolder is not None and request.image_encoder_path is None:
        raise InvalidArgument("image_encoder_subfolder", "expected image_encoder_path with it")
    conditioning = {controlnet.ip_adapter_index for controlnet in request.controlnets}
    for index, adapter in enumerate(request.ip_adapter):
        if adapter.scales == 0 and index not in conditioning:
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
    warnings: list[str] = []
    layers = cross_attentions(checkpoint.unet) if request.ip_adapter else ()
    adapters = tuple(
        _adapter(request, index, context, layers, checkpoint, warnings) for index in range(len(request.ip_adapter))
    )
    first = next((index for index, adapter in enumerate(adapters) if adapter.needs_encoder), None)
    encoder = None if first is None else _encoder(request, first, context, warnings)
    if encoder is None:
        warnings += [
            f"{field}: no IP-Adapter of the request takes an image encoder, ignored"
            for field, value in _encoder_fields(request).items()
            if value is not None
        ]
    for index, adapter in enumerate(adapters):
        if encoder is not None and adapter.needs_encoder:
            _check_fit(index, adapter.projection, encoder)
    return IpAdapters(adapters, encoder, _loras(adapters, checkpoint), tuple(warnings))


def fit_pictures(pictures: Pictures, size: Size, found: IpAdapters, context: PrepareContext) -> Pictures:
    """Image prompts as CLIP's image processor resizes and crops them; masks at the size of the result.

    Pictures in which a face is to be found stay as they are. Raises InvalidArgument for image prompts that have too
    many pixels when they are resized: a small file may name hundreds of small pictures.
    """
    pixels, prompts = dict(pictures.pixels), 0
    for index, adapter in enumerate(found.adapters):
        if adapter.face_pack is None:
            assert found.encoder is not None
            side = int(found.encoder.config.get("image_size", 224))
            for field in adapter.images:
                context.check_cancelled()
                check_pixels(field, prompts := prompts + side**2, context)
                pixels[field] = crop_square(pixels[field], side)
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
    warnings: list[str],
) -> IpAdapterPlan:
    adapter, place = request.ip_adapter[index], f"ip_adapter[{index}]"
    names = [] if adapter.weight_name is None else [adapter.weight_name]
    found = find_network_file(f"{place}.path", adapter.path, adapter.model_subfolder or "", chosen(*names), context)
    if found.is_single:
        unread = {f"{place}.model_subfolder": adapter.model_subfolder, f"{place}.weight_name": adapter.weight_name}
        warnings += warn_of_unread_names(f"{place}.path", unread)
    try:
        projection = read_ip_adapter(found.stored)
        check_fits(projection, layers, _text_width(checkpoint))
        _check_face(projection, adapter)
    except CheckpointError as error:
        raise InvalidArgument(f"{place}.path", str(error)) from error
    try:
        by_layer = layer_scales(adapter.scales, [layer.name for layer in layers])
    except ScaleError as error:
        raise InvalidArgument(f"{place}.scale_json", str(error)) from error
    return IpAdapterPlan(
        projection=projection.model_copy(update={"name": place, "field": f"{place}.path"}),
        images=tuple(_image_fields(index, adapter)),
        scales=by_layer,
        widths=tuple(layer.width for layer in layers),
        face_pack=_face_pack(f"{place}.insight_face_model_path", adapter, context),
    )


def _face_pack(field: str, adapter: IPAdapter, context: PrepareContext) -> FacePackPlan | None:
    value = adapter.insight_face_model_path
    return None if value is None else face_pack.resolve(field, value, context)


def _check_face(projection: Component, adapter: IPAdapter) -> None:
    """Raises CheckpointError when the adapter takes a face and the request finds none, or the other way around."""
    kind, has_pack = projection.config["projection"], adapter.insight_face_model_path is not None
    if kind in ("faceid", "faceid_plus") and not has_pack:
        raise CheckpointError(
            "it is an IP-Adapter FaceID: name the InsightFace pack that finds the face in insight_face_model_path"
        )
    if kind in ("base", "full") and has_pack:
        raise CheckpointError(
            "it takes a picture, not a face: expected a FaceID or InstantID adapter with insight_face_model_path"
        )


def _loras(adapters: Sequence[IpAdapterPlan], checkpoint: Checkpoint) -> tuple[LoraPlan, ...]:
    """The LoRAs in the adapters' files, each file's once: its layers do not depend on the picture."""
    found: dict[str, LoraPlan] = {}
    for adapter in adapters:
        (file,) = adapter.projection.files
        field, stored = adapter.projection.field, StoredFile(file.path, file.digest, file.fingerprint)
        try:
            if file.digest in found or not has_lora(file.path):
                continue
            summary = lora_summary(stored, checkpoint.adaptable, of_adapter=True)
        except (LoraError, WeightFileError, FileChangedError) as error:
            raise InvalidArgument(field, str(error)) from error
        found[file.digest] = LoraPlan(
            field=field,
            path=file.path,
            digest=file.digest,
            fingerprint=file.fingerprint,
            scale=1.0,
            components=summary.components,
            receipt=summary.receipt,
            of_adapter=True,
        )
    return tuple(found.values())


def _text_width(checkpoint: Checkpoint) -> int:
    """The width of the UNet's text embeddings."""
    widths = (
        shape[-1] for name, shape in checkpoint.unet.shapes.items() if shape and name.endswith("attn2.to_k.weight")
    )
    return next(widths)  # `check_unet` found one


def _encoder_fields(request: ImageToImageInput) -> dict[str, str | None]:
    """The fields that name the image encoder; None where they have their default."""
    name = request.image_encoder_weight_name
    default = type(request).model_fields["image_encoder_weight_name"].default
    return {
        "image_encoder_path": request.image_encoder_path,
        "image_encoder_subfolder": request.image_encoder_subfolder,
        "image_encoder_weight_name": None if name == default else name,
    }


def _encoder(request: ImageToImageInput, adapter: int, context: PrepareContext, warnings: list[str]) -> Component:
    """The image encoder that the request names, else that in the folder of this adapter, the first that needs one, as
    in diffusers."""
    field, value = "image_encoder_path", request.image_encoder_path
    subfolder = request.image_encoder_subfolder or ""
    if value is None:
        first = request.ip_adapter[adapter]
        value, subfolder = first.path, "/".join(filter(None, (first.model_subfolder, _ENCODER_FOLDER)))
    given = "image_encoder_weight_name" in request.model_fields_set
    names = (request.image_encoder_weight_name,) if given else _ENCODER_NAMES
    try:
        found = find_network_file(field, value, subfolder, chosen(*names), context)
        if found.is_single:
            fields = _encoder_fields(request)
            warnings += warn_of_unread_names(field, {name: fields[name] for name in fields if name != field})
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
            "name the encoder that it was made for in image_encoder_path (for InstantID, which takes a face, name the "
            "InsightFace pack in insight_face_model_path)",
        )
