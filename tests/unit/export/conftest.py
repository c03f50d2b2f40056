"""What the tests of `export/` share: the tiny networks, their artifacts and compiled graphs, each made once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from export.make_artifact import make_artifact
from export.publish import exporting, publish
from runtime.artifacts.artifact import Artifact, read_artifact
from runtime.artifacts.manifest import ArtifactKey, LowRankMode, low_rank_modes
from tests.unit.export.networks import ALL_NETWORKS, TinyNetwork
from tests.unit.export.openvino_graph import OpenVinoGraph

torch.set_num_threads(1)


class Graphs:
    """The artifacts of the tiny networks, in one folder."""

    def __init__(self, root: Path, tiny: Path) -> None:
        self.root, self._tiny = root, tiny
        self.network = cache(self._network)
        self.artifact = cache(self._artifact)
        self.compiled = cache(self._compiled)

    def _network(self, name: str) -> TinyNetwork:
        return ALL_NETWORKS[name](self._tiny)

    def _artifact(self, name: str, low_rank: LowRankMode) -> Artifact:
        """In the mode `none` if LoRAs do not change the network."""
        architecture = self.network(name).architecture
        mode: LowRankMode = low_rank if low_rank in low_rank_modes(architecture.kind) else "none"
        key = ArtifactKey(architecture.kind, architecture.digest, mode)
        with exporting(self.root):
            made = make_artifact(key, architecture, lambda _: None)
            publish(self.root, made.artifact.manifest, made.compressed)
        artifact = read_artifact(self.root, key)
        assert artifact is not None
        return artifact

    def _compiled(self, name: str, low_rank: LowRankMode = "linear") -> OpenVinoGraph:
        """With the network's own weights, and low-rank inputs if LoRAs change the network."""
        return OpenVinoGraph(self.artifact(name, low_rank), self.network(name).weights)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Graphs:
    return Graphs(tmp_path_factory.mktemp("artifacts"), tiny)
