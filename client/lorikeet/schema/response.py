"""The output of `lora_image_to_image`."""

from pydantic import Field

from lorikeet.schema.base import Float, Int, Model


class File(Model):
    """A file made by the server."""

    url: str = Field(description="Where to download it; empty when it comes as a tensor of the same reply.")
    content_type: str | None = Field(default=None, description="Its MIME type.")
    file_name: str | None = Field(default=None, description="Its name.")
    file_size: Int | None = Field(default=None, ge=0, description="Its size in bytes.")


class Image(File):
    """An image file."""

    width: Int | None = Field(default=None, description="Width in pixels.")
    height: Int | None = Field(default=None, description="Height in pixels.")


class ImageToImageOutput(Model):
    """The API's output, followed by what this server adds to it."""

    images: list[Image] = Field(description="The images.")
    seed: Int = Field(description="The seed of the request, or the random one used in its place.")
    has_nsfw_concepts: list[bool] = Field(description="Whether the safety checker flagged it, by image.")
    debug_latents: File | None = Field(default=None, description="The last latents, when asked for.")
    debug_per_pass_latents: File | None = Field(default=None, description="The latents of each step, when asked for.")
    timings: dict[str, Float] = Field(default_factory=dict, description="Seconds by stage.")
    engine: str = Field(default="", description="The engine that ran the U-Net.")
    precision: str = Field(default="", description="The U-Net's arithmetic, e.g. 'float16'.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of the libraries by name.")
    files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of every file used, by the dotted field that named it."
    )
    warnings: list[str] = Field(
        default_factory=list, description="What was accepted but had no effect, e.g. unknown fields."
    )

    def to_json(self) -> str:
        """The output as it goes over the wire: what was not asked for is absent, never null."""
        return self.model_dump_json(exclude_none=True)
