"""The API's samplers as diffusers' scheduler classes, and what each class supports. Importing this needs no torch.

The tables repeat the signatures of diffusers. A test compares them.
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

# The classes that a checkpoint may name: those of the samplers, and PNDM, which SD 1.x names.
CLASSES = (PNDM, DDIM, EULER, EULER_A, DPM_SOLVER, LCM, TCD)

# Options that replace the spacing of the steps by a spacing of sigmas.
_SIGMA_OPTIONS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
}
# Classes that accept custom timesteps, and the options with which they refuse them.
_TAKES_TIMESTEPS: dict[str, tuple[str, ...]] = {
    DPM_SOLVER: tuple(_SIGMA_OPTIONS),
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
    """A scheduler class of diffusers and its configuration: the checkpoint's, with the options of name and request.

    `name` is the text for messages to the client.
    """

    name: str
    class_name: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def takes_timesteps(self) -> bool:
        """Whether a request may give custom timesteps. Follows the checks of diffusers' `set_timesteps`."""
        refused_option = any(self.config.get(option) for option in _TAKES_TIMESTEPS.get(self.class_name, ()))
        continuous = self.class_name == EULER and self.config.get("timestep_type") == "continuous"
        by_sigma = continuous and self.config.get("prediction_type") == "v_prediction"
        return self.class_name in _TAKES_TIMESTEPS and not refused_option and not by_sigma

    @property
    def takes_sigmas(self) -> bool:
        """Whether a request may give custom sigmas."""
        return self.class_name in _TAKES_SIGMAS

    @property
    def takes_eta(self) -> bool:
        """Whether a step uses eta. The other classes ignore eta, as in diffusers' pipelines."""
        return self.class_name in _TAKES_ETA

    @property
    def takes_zero_snr(self) -> bool:
        """Whether the betas can be rescaled to a terminal signal-to-noise ratio of zero (arXiv 2305.08891)."""
        return self.class_name in _TAKES_ZERO_SNR

    @property
    def train_timesteps(self) -> int:
        """Number of steps of the training schedule."""
        return int(self.config.get("num_train_timesteps", _DEFAULT_TRAIN_TIMESTEPS))

    @property
    def max_steps(self) -> int:
        """The largest number of steps that a schedule can have.

        DPM-Solver's leading spacing divides num_train_timesteps by steps + 1. With num_train_timesteps steps, all
        steps would have the same timestep.
        """
        leading = self.class_name == DPM_SOLVER and self.config.get("timestep_spacing") == "leading"
        return self.train_timesteps - leading

    @property
    def extra_steps(self) -> int:
        """At most this many steps are run beyond those asked for: PNDM begins with Runge-Kutta steps (arXiv 2202.09778)
        or repeats one step."""
        if self.class_name != PNDM:
            return 0
        return 1 if self.config.get("skip_prk_steps") else 9


def find_sampler(name: SchedulerName | None, config: dict[str, Any], **overrides: Any) -> Sampler:
    """The sampler of this name with a checkpoint's scheduler configuration. None means the checkpoint's own class.

    `overrides` replace the options of the name and of the checkpoint.
    """
    if name is None:
        own = config["_class_name"]
        return Sampler(f"the checkpoint's own {own}", own, config | overrides)
    class_name, options = _SAMPLERS[name]
    return Sampler(name.value, class_name, config | options | overrides)


def _dpmpp_2m(**options: Any) -> tuple[str, dict[str, Any]]:
    """Multistep DPM-Solver++ of order 2 (arXiv 2211.01095). The name alone chooses the sigmas, not the checkpoint."""
    return DPM_SOLVER, {"algorithm_type": "dpmsolver++", "solver_order": 2, **_SIGMA_OPTIONS, **options}


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
