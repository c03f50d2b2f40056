"""Reads a checkpoint that is one `.safetensors` file. The file is not converted; see `layouts`.

The names and shapes of the tensors give the architecture. The other configuration values come from the published
checkpoint of its family (`model_families`), or from a sidecar.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from runtime.checkpoints.checkpoint import Checkpoint, Component, Role, Tokenizer, WeightFile, kind_of
from runtime.checkpoints.checks import CheckpointError, check_unet, check_vae
from runtime.checkpoints.clip_vocabulary import VOCABULARY_SIZE
from runtime.checkpoints.component_shapes import ComponentShapes
from runtime.checkpoints.config_from_shapes import text_config, unet_config, vae_config
from runtime.checkpoints.layouts import UNET_FIRST, UNET_ROOT, LayoutName
from runtime.checkpoints.model_families import SD_1, SD_2_BASE, SD_2_V, SDXL, Family
from runtime.checkpoints.network_config import check_config
from runtime.checkpoints.other_models import other_file
from runtime.checkpoints.prediction_type import V_PREDICTION, marked_schedule, told_prediction
from runtime.checkpoints.sidecar import Sidecar, read_sidecar
from runtime.files.located import SingleFile
from runtime.files.safetensors_file import WeightFileError, read_header

# Tensors of models for the EDM noise schedule (arXiv 2206.00364), as Playground v2.5; no scheduler of the API has it.
_EDM_MARKS = {"edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min"}

_OF_THE_UNET = ("prediction_type", "rescale_betas_zero_snr")  # of a scheduler's configuration


def read_single_file(file: SingleFile) -> Checkpoint:
    """The checkpoint in a file. Raises CheckpointError: damaged, or of an architecture that is not served."""
    try:
        return _read(file, read_sidecar(file))
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error


def read_unet_file(file: SingleFile, base: Component) -> Component:
    """The UNet in a file, which may contain other components. Values that shapes cannot give are those of `base`.

    Raises CheckpointError.
    """
    try:
        names = read_header(file.stored.path).tensors.keys()
        _check_marks(names)
        unet = _component("unet", file, _unet_layout(names))
        derived = unet_config(ComponentShapes(unet))
        # Without it, the attention of SD 2.1's v UNet overflows in float16.
        upcast = {"upcast_attention": True} if _family(unet, derived) is SD_2_V else {}
        config = {**base.config, **derived, **upcast, **read_sidecar(file).config("unet")}
        if "time_embedding.cond_proj.weight" not in unet.shapes:
            config.pop("time_cond_proj_dim", None)
        return _configured(unet, config)
    except WeightFileError as error:
        raise CheckpointError(str(error)) from error


def unet_schedule(file: SingleFile, unet: Component) -> dict[str, Any]:
    """The fields of a scheduler's configuration that a file of `read_unet_file` tells: they go with its UNet.

    Raises WeightFileError and FileChangedError.
    """
    is_sd_2 = kind_of(unet) != "sdxl" and bool(unet.config["use_linear_projection"])
    marks = marked_schedule(read_header(file.stored.path).tensors.keys())
    own = {name: value for name, value in read_sidecar(file).config("scheduler").items() if name in _OF_THE_UNET}
    return told_prediction(unet, is_sd_2=is_sd_2) | marks | own


def _read(file: SingleFile, sidecar: Sidecar) -> Checkpoint:
    names = read_header(file.stored.path).tensors.keys()
    _check_marks(names)
    layout = _layout(names)
    bare = _component("unet", file, layout)
    shapes = ComponentShapes(bare)
    derived = unet_config(shapes)
    family = _family(bare, derived)
    encoders = _text_encoders(file, layout, family, sidecar)
    unet = _configured(bare, _unet_config(derived, family, encoders) | sidecar.config("unet"))
    vae = _component("vae", file, layout)
    vae = _configured(vae, family.vae | vae_config(ComponentShapes(vae)) | sidecar.config("vae"))
    check_unet(unet, encoders)
    check_vae(vae)
    prediction = told_prediction(bare, is_sd_2=family in (SD_2_BASE, SD_2_V))
    return Checkpoint(
        kind=family.kind,
        unet=unet,
        vae=vae,
        text_encoders=tuple(encoders),
        tokenizers=_tokenizers(family, encoders, sidecar),
        scheduler=family.scheduler | prediction | marked_schedule(names) | sidecar.config("scheduler"),
    )


def _check_marks(names: Collection[str]) -> None:
    if marks := _EDM_MARKS.intersection(names):
        raise CheckpointError(
            f"it is trained on the EDM noise schedule (it has {min(marks)}), which no scheduler of the API has: use "
            "another checkpoint"
        )


def _layout(names: Collection[str]) -> LayoutName:
    if found := _whole_layout(names):
        return found
    if UNET_FIRST in names or "conv_in.weight" in names:
        raise CheckpointError("it contains only a UNet: give it as unet_name")
    what = other_file(names)
    hint = f"it is {what}" if what else "expected tensors model.diffusion_model.… or unet.…"
    raise CheckpointError(f"it contains no Stable Diffusion UNet: {hint}")


def _unet_layout(names: Collection[str]) -> LayoutName:
    """As `_layout`; the file may contain only a UNet."""
    if found := _whole_layout(names):
        return found
    if UNET_FIRST in names:
        return "original"
    return "component" if "conv_in.weight" in names else _layout(names)


def _whole_layout(names: Collection[str]) -> LayoutName | None:
    """The layout of a file of a whole checkpoint, by its prefixes; None: it has none of them."""
    if f"{UNET_ROOT}{UNET_FIRST}" in names:
        return "original"
    return "prefixed" if "unet.conv_in.weight" in names else None


def _family(unet: Component, config: dict[str, Any]) -> Family:
    if kind_of(unet) == "sdxl":
        return SDXL
    if not config["use_linear_projection"]:
        return SD_1
    return SD_2_V if V_PREDICTION in told_prediction(unet, is_sd_2=True).values() else SD_2_BASE


def _component(name: Role, file: SingleFile, layout: LayoutName) -> Component:
    """A component without a configuration."""
    stored = file.stored
    weights = WeightFile(path=stored.path, digest=stored.digest, fingerprint=stored.fingerprint)
    return Component(role=name, config={}, files=(weights,), layout=layout)


def _configured(component: Component, config: dict[str, Any]) -> Component:
    check_config(component.name, config)
    # A new one: a copy would keep the digest and the shapes that were computed without the configuration.
    return Component(role=component.role, config=config, files=component.files, layout=component.layout)


def _unet_config(derived: dict[str, Any], family: Family, encoders: list[Component]) -> dict[str, Any]:
    widths = derived["block_out_channels"]
    heads = 8 if family.head_width is None else [max(width // family.head_width, 1) for width in widths]
    config = family.unet | derived | {"attention_head_dim": heads}  # diffusers' name for the number of heads
    if family is SDXL:  # the input of the added embedding is the pooled text and six embedded sizes
        pooled = ComponentShapes(encoders[-1]).size("text_projection.weight", 0)
        config["addition_time_embed_dim"] = max((derived["projection_class_embeddings_input_dim"] - pooled) // 6, 1)
    return config


def _text_encoders(file: SingleFile, layout: LayoutName, family: Family, sidecar: Sidecar) -> list[Component]:
    encoders: list[Component] = []
    roles: tuple[Role, ...] = ("text_encoder", "text_encoder_2")
    for name, published in zip(roles, family.text_encoders, strict=False):
        bare = _component(name, file, layout)
        if not bare.shapes:
            hint = "give a UNet alone as unet_name" if not encoders else "an SDXL refiner is not a base model"
            raise CheckpointError(f"its {name} is missing ({hint})")
        config = published | text_config(ComponentShapes(bare))
        if family.text_layers is not None:
            config["num_hidden_layers"] = min(config["num_hidden_layers"], family.text_layers)
        if "projection_dim" not in config:
            config["projection_dim"] = config["hidden_size"]
        encoders.append(_configured(bare, config | sidecar.config(name)))
    return encoders


def _tokenizers(family: Family, encoders: list[Component], sidecar: Sidecar) -> tuple[Tokenizer, ...]:
    found = []
    for name, pad, encoder in zip(("tokenizer", "tokenizer_2"), family.pads, encoders, strict=False):
        if name not in sidecar.tokenizers and encoder.config["vocab_size"] != VOCABULARY_SIZE:
            size = encoder.config["vocab_size"]
            raise CheckpointError(
                f"{encoder.name} has {size} tokens; expected the {VOCABULARY_SIZE} of CLIP: name a {name} in "
                "NAME.config.json next to a local file"
            )
        found.append(sidecar.tokenizers.get(name, Tokenizer(pad_token=pad)))
    return tuple(found)
