"""The weight set of one of a plan's components: its base and the LoRAs that change it."""

from __future__ import annotations

from runtime.checkpoints.checkpoint import Component
from runtime.engines.engine import Binding, Engine, WeightsError
from runtime.errors import InvalidArgument
from runtime.files.tensors import WeightFileError
from runtime.lora.file import LoraError, read_lora
from runtime.lora.load import load_factors
from runtime.plan import LoraPlan, Plan
from runtime.weights import LowRank, WeightSet


def weight_set(plan: Plan, component: Component) -> WeightSet:
    """The component's weights as the request wants them. Raises InvalidArgument that names the LoRA's field."""
    low_rank: dict[str, list[LowRank]] = {}
    changes = []
    for lora in plan.loras:
        factors = _factors(plan, lora, component)
        if factors:
            changes.append(f"{lora.digest}*{lora.scale!r}")
        for name, factor in factors.items():
            low_rank.setdefault(name, []).append(factor)
    return WeightSet(component, "+".join(changes), low_rank=low_rank)


def bind(engine: Engine, plan: Plan, component: Component) -> Binding:
    """The component's weights bound to its engine; what does not fit is the request's fault."""
    try:
        return engine.bind(weight_set(plan, component))
    except (WeightsError, WeightFileError) as error:
        raise InvalidArgument("model_name", str(error)) from error


def _factors(plan: Plan, lora: LoraPlan, component: Component) -> dict[str, LowRank]:
    if lora.scale == 0.0:
        return {}
    try:
        layers = read_lora(lora.path, plan.checkpoint.adaptable)
        mine = [layer for layer in layers if layer.target.component == component.name]
        return load_factors(lora.path, mine, lora.scale)
    except (LoraError, WeightFileError) as error:
        raise InvalidArgument(lora.field, str(error)) from error
