"""A ControlNet and the part of the schedule it acts on."""

from pydantic import Field, model_validator
from typing_extensions import Self

from lorikeet.schema.base import FileRef, Float, Int, Model, Name


class ControlNet(Model):
    """One ControlNet; those of a request add their residuals."""

    path: FileRef = Field(description="URL, Hub id or path of the ControlNet weights.")
    config_url: FileRef | None = Field(default=None, description="URL of the ControlNet's config.json.")
    variant: Name | None = Field(default=None, description="Variant of a Hub repository, e.g. 'fp16'.")
    image_url: FileRef = Field(description="URL of the control image.")
    mask_url: FileRef | None = Field(
        default=None,
        description="URL of a mask of the control image's size, both divisible by 32; black switches it off.",
    )
    conditioning_scale: Float = Field(default=1.0, ge=0, le=2, description="Factor of the residuals.")
    start_percentage: Float = Field(
        default=0.0, ge=0, le=1, description="Fraction of the steps at which the ControlNet begins to act."
    )
    end_percentage: Float = Field(
        default=1.0, ge=0, le=1, description="Fraction of the steps at which the ControlNet ceases to act."
    )
    ip_adapter_index: Int | None = Field(
        default=None, ge=0, description="Index of the IP-Adapter that conditions it (InstantID only)."
    )

    @model_validator(mode="after")
    def _starts_before_end(self) -> Self:
        if self.start_percentage >= self.end_percentage:
            raise ValueError("start_percentage must be less than end_percentage")
        return self
