"""A ControlNet and the steps in which it is applied."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, model_validator
from typing_extensions import Self

from lorikeet.schema.base import FileRef, Float, Int, Model, Name


class ControlNet(Model):
    """One ControlNet. The residuals of all ControlNets of a request are added."""

    # Names in the types of fal's JavaScript client.
    aliases: ClassVar[Mapping[str, str]] = {"control_image_url": "image_url", "mask_image_url": "mask_url"}

    path: FileRef = Field(description="URL, Hub id or path of the ControlNet weights.")
    config_url: FileRef | None = Field(default=None, description="URL of the ControlNet's config.json.")
    variant: Name | None = Field(default=None, description="Variant of a Hub repository, e.g. 'fp16'.")
    image_url: FileRef = Field(description="URL of the control image.")
    mask_url: FileRef | None = Field(
        default=None,
        description="URL of a mask of the control image's size, both divisible by 32; no effect where black.",
    )
    mask_threshold: Float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Grey from which on the mask is white, below black; unset keeps its greys.",
    )
    conditioning_scale: Float = Field(
        default=1.0, ge=0, le=2, description="Factor by which the residuals are multiplied."
    )
    start_percentage: Float = Field(
        default=0.0, ge=0, le=1, description="Fraction of the steps at which the ControlNet starts."
    )
    end_percentage: Float = Field(
        default=1.0, ge=0, le=1, description="Fraction of the steps at which the ControlNet stops."
    )
    ip_adapter_index: Int | None = Field(
        default=None,
        ge=0,
        description="Index of the IP-Adapter whose tokens the ControlNet takes in place of the text (InstantID).",
    )

    @model_validator(mode="after")
    def _starts_before_end(self) -> Self:
        if self.start_percentage >= self.end_percentage:
            raise ValueError("start_percentage must be less than end_percentage")
        return self
