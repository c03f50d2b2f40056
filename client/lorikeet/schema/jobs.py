"""The messages of the `jobs` model: progress and cancellation of a request in flight."""

from typing import Literal

from pydantic import Field

from lorikeet.schema.base import Int, Model, Name


class JobRequest(Model):
    """A question about a request, or the wish to end it; only the holder of its job_token may ask."""

    action: Literal["progress", "cancel"] = Field(description="'progress' only asks; 'cancel' also ends it.")
    request_id: Name = Field(min_length=1, description="The Triton request id of the request.")
    job_token: Name = Field(min_length=1, description="The secret that was sent with the request.")


class JobStatus(Model):
    """Where a request stands."""

    status: Literal["queued", "running", "done", "failed", "cancelled"] = Field(description="Its state.")
    stage: str | None = Field(default=None, description="The Triton model that works on it.")
    step: Int = Field(default=0, ge=0, description="Denoising steps done.")
    of: Int = Field(default=0, ge=0, description="Denoising steps in all; 0 while unknown.")
