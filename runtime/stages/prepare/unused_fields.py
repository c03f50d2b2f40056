"""Warnings of known fields that another field leaves without effect. A field with its default value has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorikeet.schema import ImageToImageInput, IPAdapter, Model, size_in_pixels
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.conditioning.active_steps import acts_in
from runtime.plan import IpAdapterPlan, is_guided, sized_picture
from runtime.schedulers.check_schedule import most_steps
from runtime.stages.prepare.pictures import Pictures
from runtime.stages.prepare.size import Size

_OF_THE_STEPS = ("loras", "embeddings", "controlnets", "ip_adapter")  # fields of what acts in the steps alone


def warnings(
    request: ImageToImageInput,
    checkpoint: Checkpoint,
    pictures: Pictures,
    size: Size,
    adapters: Sequence[IpAdapterPlan],
) -> Iterator[str]:
    """A line for each field whose value changes nothing, with the reason. `size`: the result's."""
    yield from _of_size(request, pictures, size)
    yield from _of_schedule(request)
    yield from _of_guidance(request, checkpoint)
    yield from _of_controlnets(request, checkpoint)
    for index, (adapter, plan) in enumerate(zip(request.ip_adapter, adapters, strict=True)):
        yield from _of_adapter(f"ip_adapter[{index}]", adapter, plan)


def _is_changed(model: Model, field: str) -> bool:
    """Whether the field has another value than its default."""
    return bool(getattr(model, field) != type(model).model_fields[field].get_default(call_default_factory=True))


def _of_size(request: ImageToImageInput, pictures: Pictures, size: Size) -> Iterator[str]:
    field = sized_picture(request, pictures.pixels)
    if request.image_size and field and size_in_pixels(request.image_size) != (size.width, size.height):
        yield f"image_size: the result has the size of {field}, {size.width}x{size.height}, ignored"


def _of_schedule(request: ImageToImageInput) -> Iterator[str]:
    if request.image_url is not None and request.noise_strength == 0:
        given = (name for name in _OF_THE_STEPS if getattr(request, name))
        yield from (f"{name}: noise_strength is 0, so no step is run, ignored" for name in given)
    if request.image_url is None and _is_changed(request, "noise_strength"):
        yield "noise_strength: the request has no image_url, ignored"
    # The last sigma is the end of the last step.
    for name, schedule, length in (
        ("timesteps", request.timesteps, len(request.timesteps.array)),
        ("sigmas", request.sigmas, len(request.sigmas.array) - 1),
    ):
        if schedule.array and not schedule.is_custom:
            yield f"{name}.array: {name}.method is 'default', ignored; 'array' uses it"
        is_replaced = schedule.is_custom and request.num_inference_steps != length
        if is_replaced and _is_changed(request, "num_inference_steps"):
            yield f"num_inference_steps: {name} replaces the schedule, ignored"


def _of_guidance(request: ImageToImageInput, checkpoint: Checkpoint) -> Iterator[str]:
    if is_guided(request, checkpoint):
        return
    guidance_scale = request.guidance_scale
    why = "the UNet is distilled with guidance" if guidance_scale > 1 else f"guidance_scale is {guidance_scale:g}"
    if request.negative_prompt:
        yield f"negative_prompt: {why}, ignored"
    for index, adapter in enumerate(request.ip_adapter):
        if adapter.unconditional_noising_factor:
            yield f"ip_adapter[{index}].unconditional_noising_factor: {why}, ignored"


def _of_controlnets(request: ImageToImageInput, checkpoint: Checkpoint) -> Iterator[str]:
    steps = most_steps(request, checkpoint.scheduler, has_image=request.image_url is not None)
    if request.controlnet_guess_mode and not request.controlnets:
        yield "controlnet_guess_mode: the request has no ControlNet, ignored"
    for index, controlnet in enumerate(request.controlnets):
        if controlnet.mask_threshold is not None and controlnet.mask_url is None:
            yield f"controlnets[{index}].mask_threshold: the ControlNet has no mask_url, ignored"
        start, end = controlnet.start_percentage, controlnet.end_percentage
        if steps and not any(acts_in(step, steps, start, end) for step in range(steps)):
            yield (
                f"controlnets[{index}]: it acts in none of the {steps} steps, because none lies whole between "
                f"start_percentage {start:g} and end_percentage {end:g}"
            )


def _of_adapter(place: str, adapter: IPAdapter, plan: IpAdapterPlan) -> Iterator[str]:
    if adapter.ip_adapter_mask_url is None and _is_changed(adapter, "mask_threshold"):
        yield f"{place}.mask_threshold: the adapter has no ip_adapter_mask_url, ignored"
    if adapter.scale_json and not any(plan.scales):
        yield f"{place}.scale_json: all its scales are 0, so the adapter changes no layer"
    if adapter.scale_json and _is_changed(adapter, "scale"):
        yield f"{place}.scale: scale_json replaces it, ignored"
    if not adapter.image_projection_shortcut and plan.projection.config["projection"] != "faceid_plus":
        yield f"{place}.image_projection_shortcut: only FaceID Plus has one, ignored"
