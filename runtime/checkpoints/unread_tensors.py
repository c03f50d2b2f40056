"""Warnings of the tensors that a weight file holds and no network reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from lorikeet.protocol.shorten import listed
from runtime.checkpoints.checkpoint import Component, Role, WeightFile
from runtime.checkpoints.ip_adapter_names import lora_names
from runtime.checkpoints.layouts import LayoutName, views
from runtime.checkpoints.view import Views
from runtime.files.safetensors_file import read_header
from runtime.files.safetensors_header import TensorInfo

# Networks that a file may hold besides those that a request takes from it, by their layout.
_CHECKPOINT: tuple[Role, ...] = ("unet", "vae", "text_encoder", "text_encoder_2")
_OTHERS: dict[LayoutName, tuple[tuple[LayoutName, Role], ...]] = {
    "original": tuple(("original", role) for role in _CHECKPOINT),
    "prefixed": tuple(("prefixed", role) for role in _CHECKPOINT),
    "ip_adapter": (("prefixed", "unet"),),  # a file of a training run
    "open_clip": (("open_clip", "text_encoder_2"),),
}
_CLIP_MODEL: tuple[tuple[LayoutName, Role], ...] = (("component", "text_encoder_2"),)  # holds both of CLIP's encoders
# Tensors without effect on a picture that published checkpoints hold: the noise schedule, which the scheduler computes
# anew, counters, OpenCLIP's other tensors, and marks that `prediction_type` reads.
_EXPECTED = re.compile(
    r"betas|(sqrt_|log_)?(one_minus_)?alphas_cumprod(_prev)?|sqrt_recip(m1)?_alphas_cumprod|logvar|lvlb_weights"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|scale_factor|global_step|v_pred|ztsnr"
    r"|(cond_stage_model|conditioner\.embedders\.[01])\.model\.(logit_scale|text_projection|attn_mask)"
)
_OF_CLIP = re.compile("logit_scale|attn_mask")  # at the top of a file of a whole CLIP model
# Positions of CLIP's tokens: 0 to 76 in every file. A merge computes averages of them, which are not integers.
_POSITIONS, _INTEGERS = "position_ids", ("I64", "I32")
_EMA = "model_ema."
_MANY = 100  # with fewer `model_ema.…`, the file has no copy of the weights, only its counters (as in diffusers)


def warn_of_unread_tensors(components: Iterable[Component]) -> list[str]:
    """Sentences, each with the request field that named the file. Raises WeightFileError."""
    warnings: dict[str, None] = {}
    for component in components:
        part = f"{component.name}: " if component.layout == "component" and component.role in _CHECKPOINT else ""
        for file in component.files:
            texts = _warn(file, component.layout, component.role)
            warnings |= dict.fromkeys(f"{component.field}: {part}{text}" for text in texts)
    return list(warnings)


@lru_cache(maxsize=64)
def _warn(file: WeightFile, layout: LayoutName, role: Role) -> tuple[str, ...]:
    tensors = read_header(file.path).tensors
    held = _held(tensors, layout, role)
    loras = lora_names(tensors) if role == "image_projection" else {}  # of a FaceID, which `runtime.lora` reads
    known = held.keys() | loras.keys()
    unread = [name for name, info in tensors.items() if name not in known and not _is_expected(name, info, role)]
    average = [name for name in unread if name.startswith(_EMA)]
    kinds = {
        "which repeat others under a second name": [name for name, found in {**held, **loras}.items() if not found],
        "a moving average of the weights (EMA)": average if len(average) >= _MANY else [],
        "which no network of Stable Diffusion has": [name for name in unread if not name.startswith(_EMA)],
    }
    return tuple(f"ignored {_count(names)}, {what}: {listed(names)}" for what, names in kinds.items() if names)


def _held(tensors: dict[str, TensorInfo], layout: LayoutName, role: Role) -> dict[str, Views]:
    others = _CLIP_MODEL if (layout, role) == ("component", "image_encoder") else _OTHERS.get(layout, ())
    held: dict[str, Views] = {}
    for named, one in ((layout, role), *others):
        held |= views(named, one, {}, tensors.keys())
    return held


def _is_expected(name: str, info: TensorInfo, role: Role) -> bool:
    if name.rpartition(".")[2] == _POSITIONS:
        return info.dtype in _INTEGERS
    return _EXPECTED.fullmatch(name) is not None or (role == "image_encoder" and _OF_CLIP.fullmatch(name) is not None)


def _count(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}"
