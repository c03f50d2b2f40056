"""The graphs of a UNet whose calls without optional fields are compared, each in an artifacts' folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from export.axes import NamedAxes
from export.configurations import UNetConfig
from export.make_artifact import make_artifact
from export.publish import exporting, publish
from runtime.artifacts.manifest import ArtifactKey, LowRankMode, low_rank_modes
from runtime.networks.architecture import Architecture

_OPTIONAL = ("residual_", "ip_")


class UNetWithoutOptionalInputs(UNetConfig):
    """Without the residuals of ControlNets and the image prompts of IP-Adapters."""

    @property
    def own_axes(self) -> NamedAxes:
        return {name: axes for name, axes in super().own_axes.items() if not name.startswith(_OPTIONAL)}


# Form -> the mode of its graph, and its configuration.
FORMS: Mapping[str, tuple[LowRankMode, type[UNetConfig]]] = {
    "no optional inputs": ("none", UNetWithoutOptionalInputs),
    "no low-rank inputs": ("none", UNetConfig),
    "low-rank inputs of linear layers": ("linear", UNetConfig),
    "low-rank inputs of all layers": ("all", UNetConfig),
}


def export_form(form: str, architecture: Architecture, artifacts: Path, show: Callable[[str], None]) -> None:
    """Write a graph that an engine takes for each call of this architecture without LoRAs."""
    mode, configuration = FORMS[form]
    made = make_artifact(ArtifactKey("unet", architecture.digest, mode), architecture, show, configuration)
    with exporting(artifacts):
        for place in low_rank_modes("unet"):
            publish(artifacts, made.artifact.manifest.model_copy(update={"low_rank": place}), made.compressed)
