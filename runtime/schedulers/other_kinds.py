"""Recognizes scheduler configurations of models that no sampler of the API fits. Importing this needs no torch."""

from __future__ import annotations

from typing import Any

from runtime.schedulers.samplers import CLASSES

# Further classes for models of Stable Diffusion's kind: trained to predict the noise, v or the sample on a schedule of
# betas. A sampler of the API can replace them, with the checkpoint's betas.
REPLACEABLE = (
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
_EDM = "are trained on the EDM noise schedule"
_FLOW = "are trained by flow matching"
_CONSISTENCY = "are consistency models"
# Parts of the names of classes for models of other kinds.
_OTHER_KINDS = {
    "EDM": _EDM,
    "FlowMatch": _FLOW,
    "CMStochastic": _CONSISTENCY,
    "Consistency": _CONSISTENCY,
    "SCM": _CONSISTENCY,
}


def other_kind(config: dict[str, Any]) -> str | None:
    """What makes the models of a scheduler configuration unlike Stable Diffusion, as "are trained by flow matching".

    None: a sampler fits them. With another model every sampler gives a picture, but a wrong one.
    """
    name = config.get("_class_name")
    if isinstance(name, str) and name not in CLASSES and name not in REPLACEABLE:
        for part, kind in _OTHER_KINDS.items():
            if part in name:
                return kind
        if config.get("beta_start") is None and config.get("trained_betas") is None:
            return "are trained on another noise schedule"
    if config.get("sigma_data") is not None:
        return _EDM
    return _FLOW if config.get("use_flow_sigmas") is True else None
