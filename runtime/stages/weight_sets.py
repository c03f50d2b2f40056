"""The weight set of one of a plan's components: its base and the LoRAs that change it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runtime.checkpoints.checkpoint import Component
from runtime.engines.engine import Binding, Engine, GraphKind, WeightsError
from runtime.engines.select import Engines
from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import FileChangedError
from runtime.lora.load import LoraChanges
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.networks.build import graph_of
from runtime.plan import LoraPlan, Plan
from runtime.stage_errors import InvalidArgument
from runtime.weights.weight_set import WeightSet


def weight_set(plan: Plan, component: Component) -> WeightSet:
    """The component's weights as the request wants them. Raises InvalidArgument that names the LoRA's field; so does
    a change of it that is asked for."""
    loras = [lora for lora in plan.loras if lora.scale and component.name in lora.components]
    return WeightSet(
        component,
        changes="+".join(f"{lora.digest}*{lora.scale!r}" for lora in loras),
        added=[_changes(plan, lora, component) for lora in loras],
        files={lora.path: lora.stamp for lora in loras if lora.stamp},
    )


def bind(
    engines: Engines, kind: GraphKind, plan: Plan, component: Component, stop: Callable[[], None]
) -> tuple[Engine, Binding]:
    """The component's engine and its weights bound to it; what cannot be built, or does not fit, is the request's
    fault. `stop` is asked often, and may raise."""
    try:
        engine = engines.of(graph_of(kind, component))
        return engine, engine.bind(weight_set(plan, component), stop)
    except (WeightsError, WeightFileError) as error:
        raise InvalidArgument(_field(plan, component), str(error)) from error
    except FileChangedError as error:
        loras = (lora.field for lora in plan.loras if lora.path == error.path)
        raise InvalidArgument(next(loras, _field(plan, component)), str(error)) from error


def _field(plan: Plan, component: Component) -> str:
    """Which field named a component's files."""
    return "unet_name" if component.name == "unet" and plan.request.unet_name else "model_name"


def _changes(plan: Plan, lora: LoraPlan, component: Component) -> LoraChanges:
    try:
        layers = read_lora(lora.path, plan.checkpoint.adaptable)
        mine = [layer for layer in layers if layer.target.component == component.name]
        return LoraChanges(lora.path, mine, lora.scale, partial(InvalidArgument, lora.field))
    except (LoraError, WeightFileError) as error:
        raise InvalidArgument(lora.field, str(error)) from error
