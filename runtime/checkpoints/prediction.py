"""Whether a UNet in a single file predicts the noise or v (arXiv 2202.00512): no file says it outright.

Some say it by an empty tensor called `v_pred` (a convention of Civitai's SDXL models, which ComfyUI and others
follow). SD 2.x comes in both kinds with the same shapes; there ComfyUI's test is used, the spread of one norm's
bias. A sidecar's prediction_type, and the request's, win over both.
"""

from __future__ import annotations

import math

from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_file import SafetensorsFile, read_header

V_MARK = "v_pred"
ZERO_SNR_MARK = "ztsnr"
_TELLTALE = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
_SPREAD = 0.09
_MOST = 1 << 16  # values of a bias


def predicts_v(unet: Component, *, is_sd_2: bool) -> bool:
    """Whether it predicts v, as far as its file tells."""
    path = unet.files[0].path
    names = read_header(path).tensors.keys()
    if V_MARK in names:
        return True
    if not is_sd_2 or math.prod(unet.shapes.get(_TELLTALE, (0,))) not in range(1, _MOST):
        return False
    find = unet.views(names)
    stored = next((name for name in names if any(view.name == _TELLTALE for view in find(name))), None)
    if stored is None:
        return False
    file = SafetensorsFile(path, unet.files[0].stamp, [stored])
    return float(file.read_floats(stored).std()) > _SPREAD
