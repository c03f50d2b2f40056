"""Finds the graphs of an architecture. Importing this imports no engine's library."""

from __future__ import annotations

from pathlib import Path

from runtime.artifacts.artifact import Artifact, read_artifact
from runtime.artifacts.manifest import ArtifactKey, LowRankMode, low_rank_modes
from runtime.networks.architecture import Architecture


def read_graphs(root: Path, architecture: Architecture) -> dict[LowRankMode, Artifact] | None:
    """The artifacts of an architecture, in the order of `low_rank_modes`; None when one was not exported.

    Raises ArtifactError.
    """
    found: dict[LowRankMode, Artifact] = {}
    for mode in low_rank_modes(architecture.kind):
        artifact = read_artifact(root, ArtifactKey(architecture.kind, architecture.digest, mode))
        if artifact is None:
            return None
        found[mode] = artifact
    return found
