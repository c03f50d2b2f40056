"""Binds one of a plan's components: its engine, its weights, and the LoRAs that change them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runtime.checkpoints.checkpoint import MAX_TOKENS, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_ic_light import read_ic_light
from runtime.engines.ask import Bound
from runtime.engines.engine import CallSizes, SizesError, WeightsError
from runtime.engines.select import Engines
from runtime.files.safetensors_file import NotFiniteError, WeightFileError
from runtime.files.stored_file import FileChangedError, StoredFile
from runtime.lora.known_loras import lora_layers
from runtime.lora.lora_changes import LoraChanges
from runtime.lora.lora_error import LoraError
from runtime.networks.architecture import ArchitectureError, NetworkKind, architecture_of
from runtime.plan import IcLightPlan, LoraPlan, Plan
from runtime.stage_errors import InvalidArgument
from runtime.stages.graph_calls import graph_calls, size_field
from runtime.weights.change import ChangeSource
from runtime.weights.offsets import OffsetChanges
from runtime.weights.weight_set import WeightSet


def bind_component(
    engines: Engines,
    kind: NetworkKind,
    plan: Plan,
    component: Component,
    check_cancelled: Callable[[], None],
    block_rows: int = 1,
    tokens: int = MAX_TOKENS,
) -> Bound:
    """The component's engine with its weights bound. `block_rows`, `tokens`: the sizes of its calls (`graph_calls`).

    Raises InvalidArgument, naming the field, for what cannot be built or does not fit, and what `check_cancelled`
    raises, which is called often.
    """
    try:
        engine = engines.of(architecture_of(kind, component.config), graph_calls(kind, plan, block_rows, tokens))
        weights = weight_set(plan, component, check_cancelled)
        sizes = _call_sizes(engines, kind, plan, block_rows, tokens)
        return Bound(engine, engine.bind(weights, check_cancelled, sizes), block_rows)
    except SizesError as error:
        raise InvalidArgument(size_field(error.axis, plan, component), str(error)) from error
    except (ArchitectureError, WeightsError, WeightFileError, NotFiniteError, FileChangedError) as error:
        # Of the component's own files: a source of changes names its field itself.
        raise InvalidArgument(component.field, str(error)) from error


def _call_sizes(engines: Engines, kind: NetworkKind, plan: Plan, rows: int, tokens: int) -> CallSizes | None:
    """The sizes of the component's calls if the settings name their size; None is any size.

    The rows of these calls have no optional fields, and a text of one chunk.
    """
    is_vae = kind in ("vae_encoder", "vae_decoder")
    has_more = plan.controlnets or plan.ip_adapters or plan.ic_light or tokens != MAX_TOKENS
    # The VAE's tiles at the picture's edges are smaller.
    if not ((kind == "unet" and not has_more) or (is_vae and not plan.vae_tile)):
        return None
    _, _, height, width = plan.latents_shape
    if plan.unet_tiles and not is_vae:
        height, width = plan.unet_tiles.height, plan.unet_tiles.width
    return engines.sizes(CallSizes(rows, height, width), plan.checkpoint.vae_scale_factor)


def weight_set(plan: Plan, component: Component, check_cancelled: Callable[[], None]) -> WeightSet:
    """The component's weights as the request wants them. Raises InvalidArgument that names a LoRA's field, and so does
    reading its changes. Raises what `check_cancelled` raises, which is called before each LoRA."""
    loras = [lora for lora in plan.loras if lora.scale and component.name in lora.components]
    changes: list[ChangeSource] = []
    for lora in loras:
        check_cancelled()
        changes.append(_changes(plan, lora, component))
    if plan.ic_light is not None and component.role == "unet":
        changes.append(_offsets(plan.ic_light, plan.checkpoint.unet))
    return WeightSet(component, tuple(changes))


def _offsets(ic_light: IcLightPlan, unet: Component) -> OffsetChanges:
    stored = StoredFile(ic_light.path, ic_light.digest, ic_light.fingerprint)
    refused = partial(InvalidArgument, "ic_light_model_url")
    try:
        file = read_ic_light(stored, unet)
        return OffsetChanges(stored, file.parameters, file.shapes, refused)
    except (CheckpointError, WeightFileError, FileChangedError) as error:
        raise refused(str(error)) from error


def _changes(plan: Plan, lora: LoraPlan, component: Component) -> LoraChanges:
    stored = StoredFile(lora.path, lora.digest, lora.fingerprint)
    try:
        found = lora_layers(stored, plan.checkpoint.adaptable, lora.of_adapter)
        mine = [layer for layer in found.layers if layer.target.component == component.name]
        return LoraChanges(stored, mine, lora.scale, partial(InvalidArgument, lora.field), found.tensors)
    except (LoraError, WeightFileError, FileChangedError) as error:
        raise InvalidArgument(lora.field, str(error)) from error
