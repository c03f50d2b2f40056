"""Refuses a schedule that the sampler or the checkpoint's training does not support. The error names the field."""

from __future__ import annotations

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.schedulers.check_schedule import check_sampler, check_schedule, requested_sampler


def check(request: ImageToImageInput) -> None:
    """Raises InvalidArgument for fields that the named sampler supports with no checkpoint. Nothing is fetched yet."""
    if request.scheduler is not None:
        check_sampler(request, {})


def check_on(request: ImageToImageInput, checkpoint: Checkpoint) -> None:
    """Raises InvalidArgument for a schedule that this checkpoint's training does not have."""
    check_schedule(request, checkpoint.scheduler, has_image=request.image_url is not None)


def warnings(request: ImageToImageInput, checkpoint: Checkpoint) -> list[str]:
    """A warning of an eta that the sampler ignores."""
    sampler = requested_sampler(request, checkpoint.scheduler)
    return [f"eta: {sampler.name} takes none, ignored"] if request.eta and not sampler.takes_eta else []
