"""The manifest of a TensorRT plan: what it was built from, for which GPUs, and for which sizes of calls."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from runtime.artifacts.manifest import EXPORTER_VERSION, ArtifactKey, LowRankMode
from runtime.networks.architecture import NetworkKind

Flavour = Literal["tensorrt", "tensorrt_rtx"]
Precision = Literal["float32", "bfloat16", "float16"]
Shape = tuple[int, ...]
# The smallest size, the one that the plan is fastest for, and the largest.
SizeRange = tuple[int, int, int]
_NOT_IN_NAMES = re.compile(r"[^0-9A-Za-z.]+")  # of folders


class Profile(BaseModel):
    """The sizes of calls that a plan takes. Each range has the smallest, the typical and the largest size.

    height, width: of the latents. text_chunks: of 77 tokens; 0 for a text of `ip_tokens` tokens, as InstantID's.
    adapters, ip_tokens: of IP-Adapters; a call without any has 0 and 1. rank: of the low-rank inputs of a layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: SizeRange
    height: SizeRange
    width: SizeRange
    text_chunks: SizeRange = (1, 1, 1)
    adapters: SizeRange = (0, 0, 0)
    ip_tokens: SizeRange = (1, 1, 1)
    rank: SizeRange = (0, 0, 0)

    @model_validator(mode="after")
    def _ordered(self) -> Profile:
        for name, sizes in self:
            if list(sizes) != sorted(sizes) or sizes[0] < 0:
                raise ValueError(f"{name}: expected smallest, typical and largest size, in this order; found {sizes}")
        if self.rank[0]:
            raise ValueError(f"rank: expected 0 as the smallest, of a layer without a LoRA; found {self.rank[0]}")
        return self


class PlanKey(BaseModel):
    """Names a plan: the graph, and the precision that it computes in."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: NetworkKind
    architecture: str
    low_rank: LowRankMode
    precision: Precision

    @property
    def graph(self) -> ArtifactKey:
        return ArtifactKey(self.kind, self.architecture, self.low_rank)

    def folder(self, root: Path, flavour: Flavour) -> Path:
        """The place of the plans in the artifacts' folder: see `PlanManifest.folder`."""
        graph = root / f"{flavour}-{EXPORTER_VERSION}" / self.kind / self.architecture / self.low_rank
        return graph / self.precision


class PlanManifest(BaseModel):
    """What is checked before a plan is loaded.

    version: of the TensorRT that built the plan, which alone loads it.
    targets: the compute capabilities that it runs on. gpu: the GPU that built it; None: it was built without one.
    weights: `real` if the builder saw weights, `placeholders` if it saw only their names and shapes.
    shapes: the smallest, typical and largest shape of each input.
    graph_sha256: digest of the compressed graph's file. plan_sha256: digest of the compressed plan's file.
    verified: whether the plan computed what torch computes, at full size, with two weight sets, on `gpu`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: PlanKey
    flavour: Flavour
    version: str
    targets: tuple[str, ...]
    gpu: str | None
    weights: Literal["real", "placeholders"]
    profile: Profile
    shapes: dict[str, tuple[Shape, Shape, Shape]]
    graph_sha256: str
    plan_sha256: str
    plan_bytes: int
    verified: bool

    def folder(self, root: Path) -> Path:
        """The place of the plan in the artifacts' folder."""
        return plan_folder(root, self.key, self.flavour, self.gpu, self.targets)


def plan_folder(root: Path, key: PlanKey, flavour: Flavour, gpu: str | None, targets: Collection[str]) -> Path:
    """The place of the plan that `gpu` built; or without a GPU, of the plan for `targets`.

    Each GPU and each list of targets has a folder of its own. So a new plan never replaces the plan of another GPU, and
    a plan that was not compared with torch never replaces one that was.
    """
    machine = f"targets {' '.join(sorted(set(targets)))}" if gpu is None else gpu
    return key.folder(root, flavour) / _NOT_IN_NAMES.sub("-", machine)
