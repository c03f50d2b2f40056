"""The input of `lora_image_to_image`: all fields of the API and their ranges."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, FailFast, Field, model_validator
from typing_extensions import Self

from lorikeet.schema.base import FileRef, Float, Int, Model, Name, Prompt
from lorikeet.schema.controlnet import ControlNet
from lorikeet.schema.ip_adapter import IPAdapter
from lorikeet.schema.scheduler_fields import SchedulerName, SigmasInput, TimestepsInput
from lorikeet.schema.size import SizeOrPreset
from lorikeet.schema.weights import Embedding, LoraWeight


def _random_seed(value: object) -> object:
    """-1 means a random seed, as in the web interface of AUTOMATIC1111."""
    return None if value in (-1, "-1") else value


class ImageToImageInput(Model):
    """One request. A file field holds a URL, data URI, Hub id, path, or `tensor:<i>` (entry i of FILES)."""

    model_name: FileRef = Field(description="URL, Hub id or path of the base checkpoint.")
    unet_name: FileRef | None = Field(
        default=None, description="URL, Hub id or path of a U-Net that replaces the checkpoint's."
    )
    variant: Name | None = Field(default=None, description="Variant of a Hub repository, e.g. 'fp16'.")
    prompt: Prompt = Field(description="What the image should show.")
    negative_prompt: Prompt = Field(default="", description="What the image should not show.")
    prompt_weighting: bool = Field(
        default=False, description="Read `(word:1.4)` weights in the prompts and lift the limit of 77 tokens."
    )
    image_url: FileRef | None = Field(
        default=None, description="URL of the init image; without one the request is text-to-image."
    )
    image_size: SizeOrPreset | None = Field(
        default=None, description="Size of a text-to-image result; unset means the checkpoint's native size."
    )
    noise_strength: Float = Field(
        default=0.5, ge=0, le=1, description="Noise added to the init image: 1 discards the image, 0 adds no noise."
    )
    loras: Annotated[list[LoraWeight], FailFast()] = Field(
        default_factory=list, max_length=100, description="LoRAs, merged together; at most 100."
    )
    embeddings: Annotated[list[Embedding], FailFast()] = Field(
        default_factory=list, max_length=32, description="Textual inversions; at most 32."
    )
    controlnets: Annotated[list[ControlNet], FailFast()] = Field(
        default_factory=list, max_length=16, description="ControlNets, applied together; at most 16."
    )
    controlnet_guess_mode: bool = Field(
        default=False, description="Apply the ControlNets to the conditional prediction only."
    )
    ip_adapter: Annotated[list[IPAdapter], FailFast()] = Field(
        default_factory=list, max_length=16, description="IP-Adapters; at most 16."
    )
    image_encoder_path: FileRef | None = Field(
        default=None, description="URL, Hub id or path of the CLIP image encoder of the IP-Adapters."
    )
    image_encoder_subfolder: Name | None = Field(default=None, description="Folder of the image encoder.")
    image_encoder_weight_name: Name = Field(
        default="pytorch_model.bin", description="File name of the image encoder's weights."
    )
    ic_light_model_url: FileRef | None = Field(default=None, description="URL of the IC-Light weights.")
    ic_light_model_background_image_url: FileRef | None = Field(
        default=None, description="URL of the background, for IC-Light weights that take one."
    )
    ic_light_image_url: FileRef | None = Field(
        default=None, description="URL of the foreground that IC-Light relights."
    )
    seed: Annotated[Int | None, Field(ge=0, lt=2**64), BeforeValidator(_random_seed)] = Field(
        default=None,
        description="Seed of the noise; unset or -1 means a random seed, which the output contains.",
    )
    num_inference_steps: Int = Field(default=30, ge=1, le=150, description="Number of denoising steps.")
    guidance_scale: Float = Field(
        default=7.5, ge=0, le=20, description="Classifier-free guidance: higher values follow the prompt more closely."
    )
    clip_skip: Int = Field(default=0, ge=0, le=2, description="Number of last text encoder layers to skip.")
    scheduler: SchedulerName | None = Field(default=None, description="Sampler; unset means the checkpoint's own.")
    timesteps: TimestepsInput = Field(
        default_factory=TimestepsInput,
        description="Custom timesteps; they replace num_inference_steps and exclude sigmas.",
    )
    sigmas: SigmasInput = Field(
        default_factory=SigmasInput,
        description="Custom sigmas; they replace num_inference_steps and exclude timesteps.",
    )
    prediction_type: Literal["v_prediction", "epsilon"] | None = Field(
        default=None, description="What the U-Net predicts; unset means the checkpoint's own setting."
    )
    rescale_betas_snr_zero: bool = Field(
        default=False, description="Rescale the betas to a terminal signal-to-noise ratio of zero."
    )
    image_format: Literal["jpeg", "png"] = Field(default="png", description="Encoding of the images.")
    num_images: Int = Field(default=1, ge=1, le=8, description="Images to generate.")
    enable_safety_checker: bool = Field(
        default=False, description="Blacken images in which the safety checker finds NSFW concepts."
    )
    tile_width: Int = Field(
        default=4096, ge=128, le=4096, description="Width of a tile in pixels, in which U-Net and VAE see the picture."
    )
    tile_height: Int = Field(default=4096, ge=128, le=4096, description="Height of a tile in pixels.")
    tile_stride_width: Int = Field(
        default=2048,
        ge=64,
        le=2048,
        description="Horizontal distance between the U-Net's tiles in pixels; unset means half of tile_width. "
        "A distance above tile_width is cut to it.",
    )
    tile_stride_height: Int = Field(
        default=2048,
        ge=64,
        le=2048,
        description="Vertical distance between the U-Net's tiles in pixels; unset means half of tile_height. "
        "A distance above tile_height is cut to it.",
    )
    eta: Float = Field(default=0.0, ge=0, le=1, description="Noise added in each step (DDIM, TCD).")
    debug_latents: bool = Field(default=False, description="Return the final latents.")
    debug_per_pass_latents: bool = Field(default=False, description="Return the latents after each step.")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.timesteps.is_custom and self.sigmas.is_custom:
            raise ValueError("sigmas: cannot be set together with timesteps")
        return self
