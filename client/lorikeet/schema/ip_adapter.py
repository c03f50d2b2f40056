"""An IP-Adapter: its image prompts, weights and scales."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Discriminator, Field, Tag

from lorikeet.schema.base import FileRef, Float, Model, Name, json_problem

# Beyond any use; with it, the scaled values of an attention layer stay finite in the engines' precisions.
MAX_SCALE = 1000.0


def _scales(tree: dict[str, Any]) -> dict[str, Any]:
    if problem := json_problem(tree):
        raise ValueError(problem)
    nodes: list[Any] = [tree]
    for node in nodes:
        if isinstance(node, (dict, list)):
            nodes.extend(node.values() if isinstance(node, dict) else node)
        elif isinstance(node, (int, float)) and abs(node) > MAX_SCALE:
            raise ValueError(f"a scale is {float(node):g}: expected one from {-MAX_SCALE:g} to {MAX_SCALE:g}")
    return tree


def _kind(value: object) -> str:
    return "<many>" if isinstance(value, (list, tuple)) else "<one>"


# The value's type selects the branch, so that an error describes the intended branch only.
OneOrManyFiles = Annotated[
    Annotated[FileRef, Tag("<one>")] | Annotated[list[FileRef], Field(min_length=1, max_length=64), Tag("<many>")],
    Discriminator(_kind),
]


class IPAdapter(Model):
    """One IP-Adapter; a request may use several."""

    # Names in the types of fal's JavaScript client.
    aliases: ClassVar[Mapping[str, str]] = {
        "image_url": "ip_adapter_image_url",
        "mask_image_url": "ip_adapter_mask_url",
        "subfolder": "model_subfolder",
    }

    ip_adapter_image_url: OneOrManyFiles = Field(
        description="URL of the image prompt, or a list of URLs for one adapter."
    )
    ip_adapter_mask_url: FileRef | None = Field(
        default=None, description="URL of a mask of the same size as the image prompt."
    )
    mask_threshold: Float = Field(
        default=0.5, ge=0, le=1, description="Grey from which on the mask is white; below it is black."
    )
    path: FileRef = Field(description="URL, Hub id or path of the IP-Adapter weights.")
    model_subfolder: Name | None = Field(default=None, description="Folder of the weights in the repository.")
    weight_name: Name | None = Field(default=None, description="File name of the weights.")
    insight_face_model_path: FileRef | None = Field(
        default=None,
        description="Hub id, folder or zip archive of the InsightFace pack that finds the face (FaceID, InstantID).",
    )
    scale: Float = Field(default=1.0, ge=0, le=MAX_SCALE, description="Strength of the image prompt.")
    scale_json: Annotated[dict[str, Any], AfterValidator(_scales)] | None = Field(
        default=None,
        description='Scales by U-Net block, overriding `scale`, e.g. {"down": {"block_2": [0.0, 1.0]}}.',
    )
    unconditional_noising_factor: Float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of noise in the unconditional image prompt; 0 uses a zero embedding.",
    )
    image_projection_shortcut: bool = Field(
        default=True,
        description="True for FaceID Plus V2 weights, false for FaceID Plus V1; without effect on other kinds.",
    )

    @property
    def scales(self) -> float | Mapping[str, Any]:
        """`scale_json`, or `scale` without it: an empty `scale_json` names no block."""
        return self.scale_json or self.scale
