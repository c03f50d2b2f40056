"""The fields of a request that choose its schedule, checked before any weight is read. No torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from lorikeet.schema import ImageToImageInput, SchedulerName
from runtime.schedulers.samplers import Sampler, find_sampler
from runtime.stage_errors import InvalidArgument

# What float32 can square and divide by.
_MIN_SIGMA, _MAX_SIGMA = 1e-6, 1e6


def requested_sampler(request: ImageToImageInput, config: dict[str, Any]) -> Sampler:
    """The request's sampler on a checkpoint's scheduler configuration; what the request gives wins."""
    return _sampler(request.scheduler, request, config)


def check_sampler(request: ImageToImageInput, config: dict[str, Any]) -> None:
    """Raises InvalidArgument for a field that the sampler cannot take on this configuration, and names those that can.

    An empty configuration is one that rules nothing out.
    """
    sampler = requested_sampler(request, config)
    if request.rescale_betas_snr_zero and not sampler.takes_zero_snr:
        raise _cannot("rescale_betas_snr_zero", request, config, lambda other: other.takes_zero_snr)
    if request.timesteps.is_custom and not sampler.takes_timesteps:
        raise _cannot("timesteps", request, config, lambda other: other.takes_timesteps)
    if request.sigmas.is_custom and not sampler.takes_sigmas:
        raise _cannot("sigmas", request, config, lambda other: other.takes_sigmas)


def check_schedule_fields(request: ImageToImageInput, config: dict[str, Any], *, has_image: bool) -> None:
    """Raises InvalidArgument for a field that asks for no schedule of this sampler on this configuration."""
    check_sampler(request, config)
    sampler = requested_sampler(request, config)
    if request.timesteps.is_custom:
        _check_timesteps(request.timesteps.array, sampler.train_timesteps)
        _check_left(request, "timesteps", len(request.timesteps.array), has_image)
    elif request.sigmas.is_custom:
        _check_sigmas(request.sigmas.array)
        _check_left(request, "sigmas", len(request.sigmas.array) - 1, has_image)
    elif request.num_inference_steps > sampler.longest:
        raise InvalidArgument("num_inference_steps", f"the checkpoint's training has only {sampler.longest} steps")


def steps_left(request: ImageToImageInput, length: int) -> int:
    """Steps of a schedule of this length that are run with an init image."""
    if request.timesteps.is_custom or request.sigmas.is_custom:
        return int(length * request.noise_strength)
    return min(request.num_inference_steps, length)


def _sampler(name: SchedulerName | None, request: ImageToImageInput, config: dict[str, Any]) -> Sampler:
    wins: dict[str, Any] = {}
    if request.prediction_type is not None:
        wins["prediction_type"] = request.prediction_type
    if request.rescale_betas_snr_zero:
        wins["rescale_betas_zero_snr"] = True
    return find_sampler(name, config, **wins)


def _cannot(
    field: str, request: ImageToImageInput, config: dict[str, Any], can: Callable[[Sampler], bool]
) -> InvalidArgument:
    """The error that names the samplers which can."""
    those = ", ".join(name.value for name in SchedulerName if can(_sampler(name, request, config)))
    return InvalidArgument(field, f"{requested_sampler(request, config).name} cannot do this; those that can: {those}")


def _check_timesteps(array: list[int], train_timesteps: int) -> None:
    _check_descent("timesteps", array)
    if array[0] >= train_timesteps:
        raise InvalidArgument("timesteps", f"array[0] must be below {train_timesteps}, the steps of the training")


def _check_sigmas(array: list[float]) -> None:
    _check_descent("sigmas", array)
    if len(array) < 2:
        raise InvalidArgument("sigmas", "array needs at least two values: a step leads from one to the next")
    # The last level is where the last step ends: no step divides by it.
    if array[0] > _MAX_SIGMA or min(array[:-1]) < _MIN_SIGMA:
        raise InvalidArgument("sigmas", f"array must lie between {_MIN_SIGMA:g} and {_MAX_SIGMA:g}; the last may be 0")


def _check_descent(field: str, array: list[Any]) -> None:
    for index, (higher, lower) in enumerate(pairwise(array), 1):
        if lower >= higher:
            raise InvalidArgument(field, f"array must descend; array[{index}] does not")


def _check_left(request: ImageToImageInput, field: str, length: int, has_image: bool) -> None:
    if has_image and request.noise_strength > 0 and steps_left(request, length) < 1:
        strength = request.noise_strength
        raise InvalidArgument(field, f"noise_strength {strength:g} leaves none of the {length} steps")
