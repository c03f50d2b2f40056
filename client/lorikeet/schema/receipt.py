"""The receipt of a request: everything that determines its pictures, and which LoRAs applied."""

from typing import Any

from pydantic import Field

from lorikeet.schema.base import Float, Int, Model

SENT = "(sent with the request)"  # in place of a data URI or `tensor:<i>`
MAX_REF = 256  # characters of a file reference; a longer one is cut


class LayerGroup(Model):
    """Layers of a LoRA that have one kind, rank and alpha."""

    kind: str = Field(description="Kind of the change, e.g. 'LoRA' or 'LoHa'.")
    rank: Int | None = Field(default=None, description="Rank; absent where alpha does not scale the change.")
    alpha: Float | None = Field(default=None, description="Alpha; the rank where the file has none.")
    effective_scale: Float = Field(description="What the change is multiplied by: scale times alpha / rank.")
    layers: Int = Field(description="Number of layers.")


class UnmatchedTensors(Model):
    """Tensors of a LoRA file that change nothing."""

    kind: str = Field(description="Why they match nothing.")
    count: Int = Field(description="Number of tensors.")
    names: list[str] = Field(description="Names of the first ones.")


class AppliedLora(Model):
    """How a LoRA of the request applied, or the one in the file of a FaceID adapter."""

    field: str = Field(description="The request's field that names the file.")
    digest: str = Field(description="SHA-256 of the file.")
    scale: Float = Field(description="Scale in the request; 1 for the LoRA of a FaceID adapter.")
    tensors: Int = Field(description="Tensors in the file.")
    matched: Int = Field(description="Tensors that change a layer.")
    layers: Int = Field(description="Layers that change.")
    groups: list[LayerGroup] = Field(description="These layers by kind, rank and alpha; the largest groups first.")
    embeddings: list[str] = Field(
        default_factory=list, description="Tokens of the textual inversions that the file bundles; the first ones."
    )
    unmatched: list[UnmatchedTensors] = Field(default_factory=list, description="Tensors that change nothing, by kind.")


class EngineReceipt(Model):
    """The engine that ran the U-Net, and everything that determines its arithmetic."""

    name: str = Field(default="", description="The engine, e.g. 'torch'.")
    precision: str = Field(default="", description="The U-Net's precision in force, e.g. 'float16'.")
    block_rows: Int = Field(default=0, description="Rows in one U-Net call.")
    static_shapes: bool = Field(default=False, description="Whether the engine was compiled for one size.")
    threads: Int = Field(default=0, description="Threads that run the network; 0 on a GPU.")
    device: str = Field(default="", description="The GPU's name, or the processor's instruction set.")


class Receipt(Model):
    """Equal receipts mean equal pictures, bit by bit."""

    request: dict[str, Any] = Field(default_factory=dict, description="The request; long file references are cut.")
    seed: Int = Field(default=0, description="The seed of the request, or the random seed that replaced it.")
    pictures: str = Field(default="", description="Digest of the pixels of all pictures of the request.")
    files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of every weight file used, by the dotted field that named it."
    )
    loras: list[AppliedLora] = Field(default_factory=list, description="How each LoRA applied.")
    engine: EngineReceipt = Field(default_factory=EngineReceipt, description="What ran the U-Net.")
    vae_tile_width: Int = Field(default=0, description="Width of the VAE's tiles in pixels; 0 without tiles.")
    vae_tile_height: Int = Field(default=0, description="Height of the VAE's tiles in pixels; 0 without tiles.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of the software by name.")
