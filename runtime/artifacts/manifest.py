"""The manifest of an exported graph: what it is of, and its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from runtime.networks.architecture import NetworkKind

# Part of every artifact's place. A change of the exporter that changes its graphs increases it.
EXPORTER_VERSION = 2
LowRankMode = Literal["none", "linear", "all"]
# The graphs of networks that LoRAs change. Other kinds have one graph, with the mode `none`.
_MODES: Mapping[NetworkKind, tuple[LowRankMode, ...]] = {
    "unet": ("none", "linear", "all"),
    "text_encoder": ("none", "linear"),
}
Axes = tuple[int | str, ...]


def low_rank_modes(kind: NetworkKind) -> tuple[LowRankMode, ...]:
    """The graphs of one architecture, from the one that takes no low-rank inputs to the one that takes most."""
    return _MODES.get(kind, ("none",))


class ArtifactKey(NamedTuple):
    """What an artifact is of. `architecture`: the digest of the architecture.

    low_rank: `linear` graphs take low-rank inputs for linear layers and pointwise convolutions, `all` graphs for all
    convolutions too.
    """

    kind: NetworkKind
    architecture: str
    low_rank: LowRankMode

    def folder(self, root: Path) -> Path:
        """The place of the artifact in the artifacts' folder."""
        return root / f"onnx-{EXPORTER_VERSION}" / self.kind / self.architecture / self.low_rank


class GraphTensor(BaseModel):
    """An input or output of a graph. An axis is a size or, if it is dynamic, a name.

    Inputs whose axes have equal names have equal sizes there. `export/axes.py` lists the names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    dtype: Literal["float32", "int64"]
    axes: Axes


class Manifest(BaseModel):
    """What an engine needs to know of a graph before it reads the graph.

    initializers: how many parameters the graph takes by name; it has their names and shapes, without values.
    outside: parameters of the network that the graph does not take, because the engine applies them itself: the token
    embedding of a text encoder.
    graph_sha256: digest of the compressed graph's file. graph_bytes: size of the graph when it is decompressed.
    versions: of the packages that made the graph.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    exporter: int
    kind: NetworkKind
    architecture: str
    low_rank: LowRankMode
    opset: int
    versions: dict[str, str]
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    initializers: int
    outside: tuple[str, ...]
    graph_sha256: str
    graph_bytes: int

    @property
    def key(self) -> ArtifactKey:
        return ArtifactKey(self.kind, self.architecture, self.low_rank)
