"""Checks the untrusted scheduler configuration of a checkpoint before diffusers uses it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from lorikeet.protocol.shorten import shorten
from lorikeet.schema import describe_errors
from runtime.checkpoints.checkpoint import CheckpointKind
from runtime.schedulers.other_kinds import other_kind
from runtime.schedulers.samplers import CLASSES

MAX_TRAIN_TIMESTEPS = 10_000

_Flag = bool | None
_Beta = Annotated[float, Field(gt=0, lt=1)]
_Size = Annotated[float, Field(gt=0, le=1e6)]


class ScheduleError(ValueError):
    """The scheduler configuration is invalid. The message is for the client."""


class _Config(BaseModel):
    """The fields that diffusers' Stable Diffusion schedulers use. Other fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    num_train_timesteps: int = Field(default=1000, ge=1, le=MAX_TRAIN_TIMESTEPS)
    beta_start: _Beta = 0.0001
    beta_end: _Beta = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: Annotated[list[_Beta], Field(max_length=MAX_TRAIN_TIMESTEPS)] | None = None
    rescale_betas_zero_snr: _Flag = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"

    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    timestep_type: Literal["discrete", "continuous"] = "discrete"
    steps_offset: int = Field(default=0, ge=0, le=MAX_TRAIN_TIMESTEPS)
    skip_prk_steps: _Flag = None
    original_inference_steps: int = Field(default=50, ge=1, le=MAX_TRAIN_TIMESTEPS)
    timestep_scaling: _Size = 10.0

    interpolation_type: Literal["linear", "log_linear"] = "linear"
    use_karras_sigmas: _Flag = None
    use_exponential_sigmas: _Flag = None
    use_beta_sigmas: _Flag = None
    use_lu_lambdas: _Flag = None
    use_flow_sigmas: _Flag = None
    flow_shift: _Size = 1.0
    sigma_min: _Size | None = None
    sigma_max: _Size | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    lambda_min_clipped: float = Field(default=-float("inf"), allow_inf_nan=True, le=0)

    # The last values are those of DEIS and UniPC; diffusers accepts them for the DPM solvers too.
    algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"] = "dpmsolver++"
    solver_type: Literal["midpoint", "heun", "logrho", "bh1", "bh2"] = "midpoint"
    solver_order: int = Field(default=2, ge=1, le=3)
    lower_order_final: _Flag = None
    euler_at_final: _Flag = None
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"] | None = None

    set_alpha_to_one: _Flag = None
    clip_sample: _Flag = None
    clip_sample_range: _Size = 1.0
    thresholding: _Flag = None
    dynamic_thresholding_ratio: float = Field(default=0.995, ge=0, le=1)
    sample_max_value: float = Field(default=1.0, ge=1, le=1e6)

    @model_validator(mode="after")
    def _one_beta_per_step(self) -> Self:
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            expected = f"num_train_timesteps = {self.num_train_timesteps} values"
            raise ValueError(f"trained_betas must have {expected}; found {len(self.trained_betas)}")
        return self


def with_indexed_class(config: dict[str, Any], index: dict[str, Any]) -> dict[str, Any]:
    """The scheduler's configuration with the class that `model_index.json` names, as diffusers reads a folder.

    A class for models of another kind stays, so that `read_schedule` refuses it: diffusers ignores its fields, and the
    pictures are wrong.
    """
    match index.get("scheduler"):
        case ["diffusers", str(name)] if other_kind(config) is None:
            return config | {"_class_name": name}
        case _:
            return config


def read_schedule(config: dict[str, Any], kind: CheckpointKind, *, own: bool) -> dict[str, Any]:
    """The fields of the configuration to pass to a scheduler of diffusers. Raises ScheduleError.

    `own`: whether the request uses the checkpoint's scheduler class; if so, the result has `_class_name`. For SD 1.x
    and 2.x, steps_offset is 1 and clip_sample is False: diffusers' pipelines correct outdated configurations to these.
    """
    name = config.get("_class_name")
    if kind_of_model := other_kind(config):
        raise ScheduleError(
            f"its scheduler {shorten(str(name), 100)!r} is configured for models that {kind_of_model}; no scheduler of "
            "the API fits them: use another checkpoint"
        )
    if own and name not in CLASSES:
        known = ", ".join(CLASSES)
        raise ScheduleError(
            f"its scheduler {shorten(str(name), 100)!r} is not supported; expected one of {known}; "
            "set the field scheduler to replace it"
        )
    try:
        checked = _Config.model_validate(config).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise ScheduleError(f"its scheduler configuration is invalid: {describe_errors(error)}") from error
    if kind == "sd":
        checked |= {"steps_offset": 1, "clip_sample": False}
    return checked | ({"_class_name": name} if own else {})
