"""Whether the UNet of a single file predicts the noise or v (arXiv 2202.00512).

The format has no field for it. Some SDXL models of Civitai contain an empty tensor `v_pred`, which ComfyUI reads too.
SD 2.x has both kinds with equal shapes. As in ComfyUI, the standard deviation of the bias of one norm decides. The
prediction_type of a sidecar or of the request overrides both.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_file import SafetensorsFile, read_header

V_PREDICTION = "v_prediction"
_FIELD = "prediction_type"
_V_MARK, _ZERO_SNR_MARK = "v_pred", "ztsnr"
_TESTED_BIAS = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
_MAX_STD = 0.09  # of a UNet that predicts the noise
_MAX_VALUES = 1 << 16  # of the tested bias


def marked_schedule(names: Collection[str]) -> dict[str, Any]:
    """The fields of a scheduler's configuration that the tensor names of a file ask for."""
    prediction = {_FIELD: V_PREDICTION} if _V_MARK in names else {}
    return prediction | ({"rescale_betas_zero_snr": True} if _ZERO_SNR_MARK in names else {})


def told_prediction(unet: Component, *, is_sd_2: bool) -> dict[str, Any]:
    """The `prediction_type` of a scheduler's configuration that the UNet's file tells; empty: it tells none.

    Raises WeightFileError and FileChangedError.
    """
    path = unet.files[0].path
    names = read_header(path).tensors.keys()
    if _V_MARK in names:
        return {_FIELD: V_PREDICTION}
    if not is_sd_2 or math.prod(unet.shapes.get(_TESTED_BIAS, (0,))) not in range(1, _MAX_VALUES):
        return {}
    held = unet.views(names).items()
    stored = next((name for name, views in held if any(view.name == _TESTED_BIAS for view in views)), None)
    if stored is None:
        return {}
    file = SafetensorsFile(path, unet.files[0].fingerprint, [stored])
    return {_FIELD: V_PREDICTION if float(file.read_floats(stored).std()) > _MAX_STD else "epsilon"}
