"""The output of `lora_image_to_image`."""

from pydantic import Field

from lorikeet.schema.base import Float, Int, Model
from lorikeet.schema.receipt import Receipt


class File(Model):
    """A file made by the server."""

    url: str = Field(description="URL of the file; empty when the reply holds the file as a tensor.")
    content_type: str | None = Field(default=None, description="MIME type of the file.")
    file_name: str | None = Field(default=None, description="Name of the file.")
    file_size: Int | None = Field(default=None, ge=0, description="Size of the file in bytes.")


class Image(File):
    """An image file."""

    width: Int | None = Field(default=None, description="Width in pixels.")
    height: Int | None = Field(default=None, description="Height in pixels.")
    sha256: str | None = Field(default=None, description="SHA-256 of the file; Lorikeet adds it.")


class ImageToImageOutput(Model):
    """The API's output, followed by the fields that Lorikeet adds."""

    images: list[Image] = Field(description="The images.")
    seed: Int = Field(description="The seed of the request, or the random seed that replaced it.")
    has_nsfw_concepts: list[bool] = Field(description="For each image, whether the safety checker flagged it.")
    debug_latents: File | None = Field(default=None, description="The final latents, if requested.")
    debug_per_pass_latents: File | None = Field(default=None, description="The latents of each step, if requested.")
    timings: dict[str, Float] = Field(default_factory=dict, description="Seconds by stage.")
    receipt: Receipt = Field(default_factory=Receipt, description="Everything that determines the images.")
    warnings: list[str] = Field(
        default_factory=list, description="Inputs that were accepted but had no effect, e.g. unknown fields."
    )

    def to_json(self) -> str:
        """The output as JSON. Fields that were not requested are absent, never null."""
        return self.model_dump_json(exclude_none=True)
