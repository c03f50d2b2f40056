"""The API's samplers in diffusers' terms, and what diffusers' classes can do. No torch.

The tables repeat what the signatures of diffusers say; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lorikeet.schema import SchedulerName

DDIM = "DDIMScheduler"
DPM_SOLVER = "DPMSolverMultistepScheduler"
EULER = "EulerDiscreteScheduler"
EULER_A = "EulerAncestralDiscreteScheduler"
LCM = "LCMScheduler"
PNDM = "PNDMScheduler"
TCD = "TCDScheduler"

# Those that a checkpoint may bring as its own: the ones that the samplers use, and SD 1.x's.
CLASSES = (PNDM, DDIM, EULER, EULER_A, DPM_SOLVER, LCM, TCD)

# Options that lay the steps out by sigmas of their own.
_OWN_SIGMAS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
}
# Those that take timesteps, and what of their configuration rules them out.
_TAKES_TIMESTEPS: dict[str, tuple[str, ...]] = {
    DPM_SOLVER: tuple(_OWN_SIGMAS),
    EULER: ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
    LCM: (),
    TCD: (),
}
_TAKES_SIGMAS = (EULER,)
_TAKES_ETA = (DDIM, TCD)
_TAKES_ZERO_SNR = (DDIM, DPM_SOLVER, EULER, EULER_A, LCM, TCD)
_DEFAULT_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Sampler:
    """A class of diffusers and its configuration: the checkpoint's, with what the name and the request set in it.

    `name` is fit for messages.
    """

    name: str
    class_name: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def takes_timesteps(self) -> bool:
        """Whether a request may give its own timesteps, as diffusers' `set_timesteps` decides it."""
        ruled_out = any(self.config.get(option) for option in _TAKES_TIMESTEPS.get(self.class_name, ()))
        continuous = self.class_name == EULER and self.config.get("timestep_type") == "continuous"
        by_sigma = continuous and self.config.get("prediction_type") == "v_prediction"
        return self.class_name in _TAKES_TIMESTEPS and not ruled_out and not by_sigma

    @property
    def takes_sigmas(self) -> bool:
        """Whether a request may give its own sigmas."""
        return self.class_name in _TAKES_SIGMAS

    @property
    def takes_eta(self) -> bool:
        """Whether its steps add noise as eta says; to others, as in diffusers' pipelines, it is nothing."""
        return self.class_name in _TAKES_ETA

    @property
    def takes_zero_snr(self) -> bool:
        """Whether the betas can be rescaled to a terminal signal-to-noise ratio of zero (arXiv 2305.08891)."""
        return self.class_name in _TAKES_ZERO_SNR

    @property
    def train_timesteps(self) -> int:
        """Steps of the training schedule."""
        return int(self.config.get("num_train_timesteps", _DEFAULT_TRAIN_TIMESTEPS))

    @property
    def longest(self) -> int:
        """The most steps that a schedule may have.

        DPM-Solver's leading spacing divides the training schedule by one more than the steps: with as many steps as
        that has, all would be at one timestep.
        """
        leading = self.class_name == DPM_SOLVER and self.config.get("timestep_spacing") == "leading"
        return self.train_timesteps - leading


def find_sampler(name: SchedulerName | None, config: dict[str, Any], **wins: Any) -> Sampler:
    """The sampler of that name on a checkpoint's scheduler configuration; None is the checkpoint's own.

    `wins` are options that neither the name nor the checkpoint can take back.
    """
    if name is None:
        own = config["_class_name"]
        return Sampler(f"the checkpoint's own {own}", own, config | wins)
    class_name, options = _SAMPLERS[name]
    return Sampler(name.value, class_name, config | options | wins)


def _dpmpp_2m(**options: Any) -> tuple[str, dict[str, Any]]:
    """DPM-Solver++ of order 2, multistep (arXiv 2211.01095), with no sigmas but those that the name speaks of."""
    return DPM_SOLVER, {"algorithm_type": "dpmsolver++", "solver_order": 2, **_OWN_SIGMAS, **options}


_SDE = "sde-dpmsolver++"
_SAMPLERS: dict[SchedulerName, tuple[str, dict[str, Any]]] = {
    SchedulerName.DPMPP_2M: _dpmpp_2m(),
    SchedulerName.DPMPP_2M_KARRAS: _dpmpp_2m(use_karras_sigmas=True),
    SchedulerName.DPMPP_2M_SDE: _dpmpp_2m(algorithm_type=_SDE),
    SchedulerName.DPMPP_2M_SDE_KARRAS: _dpmpp_2m(algorithm_type=_SDE, use_karras_sigmas=True),
    SchedulerName.EULER: (EULER, {}),
    SchedulerName.EULER_A: (EULER_A, {}),
    SchedulerName.EULER_TRAILING: (EULER, {"timestep_spacing": "trailing"}),
    SchedulerName.LCM: (LCM, {}),
    SchedulerName.LCM_TRAILING: (LCM, {"timestep_spacing": "trailing"}),
    SchedulerName.DDIM: (DDIM, {}),
    SchedulerName.TCD: (TCD, {}),
}
