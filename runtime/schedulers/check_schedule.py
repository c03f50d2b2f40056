"""Checks the request fields that define the schedule, before any weight is read. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from lorikeet.schema import ImageToImageInput, SchedulerName
from runtime.schedulers.samplers import Sampler, find_sampler
from runtime.stage_errors import InvalidArgument

# float32 can square these values and divide by them without overflow.
_MIN_SIGMA, _MAX_SIGMA = 1e-6, 1e6


def requested_sampler(request: ImageToImageInput, config: dict[str, Any]) -> Sampler:
    """The request's sampler with a checkpoint's scheduler configuration. The request's options override it."""
    return _sampler(request.scheduler, request, config)


def check_sampler(request: ImageToImageInput, config: dict[str, Any]) -> None:
    """Raises InvalidArgument for a field that the sampler does not support. The message names the samplers that do.

    With an empty configuration, only the sampler's class is checked.
    """
    sampler = requested_sampler(request, config)
    if request.rescale_betas_snr_zero and not sampler.takes_zero_snr:
        raise _unsupported("rescale_betas_snr_zero", request, config, lambda other: other.takes_zero_snr)
    if request.timesteps.is_custom and not sampler.takes_timesteps:
        raise _unsupported("timesteps", request, config, lambda other: other.takes_timesteps)
    if request.sigmas.is_custom and not sampler.takes_sigmas:
        raise _unsupported("sigmas", request, config, lambda other: other.takes_sigmas)


def check_schedule(request: ImageToImageInput, config: dict[str, Any], *, has_image: bool) -> None:
    """Raises InvalidArgument for a field from which this sampler and configuration cannot make a schedule."""
    check_sampler(request, config)
    sampler = requested_sampler(request, config)
    if request.timesteps.is_custom:
        _check_timesteps(request.timesteps.array, sampler.train_timesteps)
        _check_steps_to_run(request, "timesteps", len(request.timesteps.array), has_image)
    elif request.sigmas.is_custom:
        _check_sigmas(request.sigmas.array)
        _check_steps_to_run(request, "sigmas", len(request.sigmas.array) - 1, has_image)
    elif request.num_inference_steps > sampler.max_steps:
        message = (
            f"{sampler.name} runs at most {sampler.max_steps} steps with this checkpoint's scheduler configuration"
        )
        raise InvalidArgument("num_inference_steps", message)


def most_steps(request: ImageToImageInput, config: dict[str, Any], *, has_image: bool) -> int:
    """At least the number of steps of the request's schedule, as `make_schedule` makes it."""
    if request.timesteps.is_custom:
        length = len(request.timesteps.array)
    elif request.sigmas.is_custom:
        length = len(request.sigmas.array) - 1
    else:
        return request.num_inference_steps + requested_sampler(request, config).extra_steps
    return steps_to_run(request, length) if has_image else length


def steps_to_run(request: ImageToImageInput, length: int) -> int:
    """How many steps of a schedule of `length` steps the request runs when it has an init image."""
    if request.timesteps.is_custom or request.sigmas.is_custom:
        return int(length * request.noise_strength)
    return min(request.num_inference_steps, length)


def _sampler(name: SchedulerName | None, request: ImageToImageInput, config: dict[str, Any]) -> Sampler:
    overrides: dict[str, Any] = {}
    if request.prediction_type is not None:
        overrides["prediction_type"] = request.prediction_type
    if request.rescale_betas_snr_zero:
        overrides["rescale_betas_zero_snr"] = True
    return find_sampler(name, config, **overrides)


def _unsupported(
    field: str, request: ImageToImageInput, config: dict[str, Any], supports: Callable[[Sampler], bool]
) -> InvalidArgument:
    """The error for a field that the sampler does not support. It names the samplers that do."""
    name = requested_sampler(request, config).name
    others = ", ".join(other.value for other in SchedulerName if supports(_sampler(other, request, config)))
    return InvalidArgument(field, f"{name} cannot use this field; remove it or set scheduler to one of: {others}")


def _check_timesteps(array: list[int], train_timesteps: int) -> None:
    _check_descent("timesteps", array)
    if array[0] >= train_timesteps:
        raise InvalidArgument("timesteps", f"array[0] must be below {train_timesteps}, the number of training steps")


def _check_sigmas(array: list[float]) -> None:
    _check_descent("sigmas", array)
    if len(array) < 2:
        raise InvalidArgument(
            "sigmas",
            f"array must have at least two values, because a step goes from one to the next; found {len(array)}",
        )
    # The last step ends at the last sigma and does not divide by it, so this sigma may be 0.
    if array[0] > _MAX_SIGMA or min(array[:-1]) < _MIN_SIGMA:
        raise InvalidArgument(
            "sigmas", f"array values must be from {_MIN_SIGMA:g} to {_MAX_SIGMA:g}; the last may be 0"
        )


def _check_descent(field: str, array: list[Any]) -> None:
    for index, (previous, value) in enumerate(pairwise(array), 1):
        if value >= previous:
            raise InvalidArgument(field, f"array must descend; array[{index}] is not below array[{index - 1}]")


def _check_steps_to_run(request: ImageToImageInput, field: str, length: int, has_image: bool) -> None:
    if has_image and request.noise_strength > 0 and steps_to_run(request, length) < 1:
        found = f"noise_strength {request.noise_strength:g} runs 0 of its {length} steps"
        raise InvalidArgument(field, f"{found}; set noise_strength to 1/{length} or more, or give more steps")
