"""Makes the TensorRT engine of an architecture, if there is a plan for it; checks the settings against the plans."""

from __future__ import annotations

from runtime.artifacts.plan import read_plan, usable_plans
from runtime.engines.compiled.low_rank_cache import LowRankCache
from runtime.engines.placement import Placement
from runtime.engines.tensorrt.call_stream import CudaStream
from runtime.engines.tensorrt.machine import this_machine
from runtime.engines.tensorrt.plan_key import plan_key
from runtime.engines.tensorrt.tensorrt_engine import TensorRtEngine
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import Architecture
from runtime.settings import Settings, SettingsError


def check_block_rows(settings: Settings) -> None:
    """Raises SettingsError when LORIKEET_BLOCK_ROWS is more than a plan of this machine takes: no request would run."""
    for plan in usable_plans(settings.artifacts_folder, this_machine(), settings.unverified_plans):
        most = plan.profile.rows[2]
        if plan.key.kind in ("unet", "controlnet") and settings.block_rows > most:
            raise SettingsError(
                f"LORIKEET_BLOCK_ROWS: {settings.block_rows}, but the TensorRT plan of a {plan.key.kind} takes at most "
                f"{most} rows; set at most {most}, or export it with other --profiles"
            )


def make_tensorrt(
    architecture: Architecture,
    settings: Settings,
    placement: Placement,
    weights: WeightsCache,
    low_ranks: LowRankCache,
    cuda_graphs: bool,
) -> TensorRtEngine | None:
    """None: no plan was built for the architecture and the precision.

    cuda_graphs: whether calls with the same shapes are replayed. Raises ArtifactError when the plan is damaged or for
    another machine, and PlanError when it cannot be loaded.
    """
    key = plan_key(architecture, placement.dtype)
    plan = read_plan(settings.artifacts_folder, key, this_machine(), settings.unverified_plans)
    if plan is None:
        return None
    return TensorRtEngine(architecture, plan, placement.device, CudaStream(), weights, low_ranks, cuda_graphs)
