"""The messages of the `jobs` model: progress and cancellation of a request in flight."""

from typing import Literal

from pydantic import Field

from lorikeet.protocol.parameters import MAX_NAME
from lorikeet.schema.base import Int, Model


class JobRequest(Model):
    """Asks for the progress of a request, renews its lease, or cancels it. job_token: that of the request."""

    action: Literal["progress", "renew", "cancel"] = Field(
        description="All return the status. 'renew' also renews the request's lease; 'cancel' also cancels it."
    )
    request_id: str = Field(min_length=1, max_length=MAX_NAME, description="The Triton request id of the request.")
    job_token: str = Field(min_length=1, max_length=MAX_NAME, description="The secret that was sent with the request.")


class JobStatus(Model):
    """The status of a request."""

    status: Literal["queued", "running", "done", "failed", "cancelled"] = Field(description="State of the request.")
    stage: str | None = Field(default=None, description="Triton model that processes the request.")
    step: Int = Field(
        default=0, ge=0, description="Completed steps of the stage: denoising steps, or pictures and tiles of the VAE."
    )
    of: Int = Field(default=0, ge=0, description="Number of steps of the stage; 0 while unknown or without steps.")
