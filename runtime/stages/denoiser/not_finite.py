"""The error for latents that are not finite, which names the request's factors that may be the cause."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.plan import Plan
from runtime.stage_errors import InvalidArgument

_MAX_NAMED = 3
_LARGE = 100.0  # a factor above this is likely the cause


def not_finite(plan: Plan, precision: str) -> InvalidArgument:
    """It has the largest factor's field, if that factor is likely the cause."""
    factors = sorted(_factors(plan), key=lambda factor: abs(factor[1]), reverse=True)[:_MAX_NAMED]
    named = ", ".join(f"{field} ({value:g})" for field, value in factors)
    field = next((field for field, value in factors if abs(value) > _LARGE), "")
    other = f"use other weights in {', '.join(_unchecked(plan))}"
    advice = f"lower {named}, or {other}" if named else other
    return InvalidArgument(field, f"the latents are not finite in {precision}: {advice}")


def _unchecked(plan: Plan) -> list[str]:
    """The fields of the checkpoint's files, whose numbers may be NaN. Numbers of other files were checked."""
    return list(dict.fromkeys(component.field for component in plan.checkpoint.components))


def _factors(plan: Plan) -> Iterator[tuple[str, float]]:
    """(field, value) of each factor of the request that acts."""
    request = plan.request
    for lora in plan.loras:
        if not lora.of_adapter:
            yield f"{lora.field.removesuffix('.path')}.scale", lora.scale
    for index, adapter in enumerate(plan.ip_adapters):
        field = "scale_json" if request.ip_adapter[index].scale_json else "scale"
        yield f"ip_adapter[{index}].{field}", max(adapter.scales, key=abs)
    for index, controlnet in enumerate(request.controlnets):
        yield f"controlnets[{index}].conditioning_scale", controlnet.conditioning_scale
    if plan.guided:
        yield "guidance_scale", request.guidance_scale
