"""Binds one of a plan's components: its engine, its weights, and the LoRAs that change them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runtime.checkpoints.checkpoint import Component
from runtime.engines.ask import Bound
from runtime.engines.engine import WeightsError
from runtime.engines.select import Engines
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError, StoredFile
from runtime.lora.known_loras import lora_layers
from runtime.lora.lora_changes import LoraChanges
from runtime.lora.lora_error import LoraError
from runtime.networks.architecture import ArchitectureError, NetworkKind, architecture_of
from runtime.plan import LoraPlan, Plan
from runtime.stage_errors import InvalidArgument
from runtime.weights.weight_set import WeightSet


def bind_component(
    engines: Engines,
    kind: NetworkKind,
    plan: Plan,
    component: Component,
    check_cancelled: Callable[[], None],
    block_rows: int = 1,
) -> Bound:
    """The component's engine with its weights bound.

    Raises InvalidArgument, naming the field, for what cannot be built or does not fit, and what `check_cancelled`
    raises, which is called often.
    """
    try:
        engine = engines.of(architecture_of(kind, component.config))
        weights = weight_set(plan, component, check_cancelled)
        sizes = engines.sizes(plan, block_rows) if _has_known_sizes(kind, plan) else None
        return Bound(engine, engine.bind(weights, check_cancelled, sizes), block_rows)
    except (ArchitectureError, WeightsError, WeightFileError) as error:
        raise InvalidArgument(component.field, str(error)) from error
    except FileChangedError as error:
        fields = (lora.field for lora in plan.loras if lora.path == error.path)
        raise InvalidArgument(next(fields, component.field), str(error)) from error


def _has_known_sizes(kind: NetworkKind, plan: Plan) -> bool:
    """Whether the plan tells the sizes of all calls: that of a weighted text follows from its tokens."""
    takes_text = kind in ("unet", "controlnet")
    return kind != "text_encoder" and not (takes_text and plan.request.prompt_weighting)


def weight_set(plan: Plan, component: Component, check_cancelled: Callable[[], None]) -> WeightSet:
    """The component's weights as the request wants them. Raises InvalidArgument that names a LoRA's field, and so does
    reading its changes. Raises what `check_cancelled` raises, which is called before each LoRA."""
    loras = [lora for lora in plan.loras if lora.scale and component.name in lora.components]
    changes = []
    for lora in loras:
        check_cancelled()
        changes.append(_changes(plan, lora, component))
    return WeightSet(component, tuple(changes))


def _changes(plan: Plan, lora: LoraPlan, component: Component) -> LoraChanges:
    stored = StoredFile(lora.path, lora.digest, lora.fingerprint)
    try:
        found = lora_layers(stored, plan.checkpoint.adaptable)
        mine = [layer for layer in found.layers if layer.target.component == component.name]
        return LoraChanges(stored, mine, lora.scale, partial(InvalidArgument, lora.field), found.tensors)
    except (LoraError, WeightFileError) as error:
        raise InvalidArgument(lora.field, str(error)) from error
