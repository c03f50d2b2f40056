"""The scheduler configurations of the published SD 1.5, SD 2.1 and SDXL.

Written as text, since they hold what the class itself does not know: PNDM's `clip_sample` is there for the
schedulers that are made from this configuration later.
"""

import json
from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD15: dict[str, Any] = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **COMMON}
SD2: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    **COMMON,
    "prediction_type": "v_prediction",
}
SDXL: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    **COMMON,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}


def write_scheduler(folder: Path, config: dict[str, Any]) -> None:
    """Write `config` (`SD15`, `SD2` or `SDXL`) into `folder`."""
    folder.mkdir(parents=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
