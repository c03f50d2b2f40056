"""Finds the graphs of an architecture. Importing this imports no engine's library."""

from __future__ import annotations

from pathlib import Path

from runtime.artifacts.artifact import Artifact, read_artifact
from runtime.artifacts.manifest import ADAPTABLE_KINDS, ArtifactKey, LowRankMode
from runtime.networks.architecture import Architecture


def read_graphs(root: Path, architecture: Architecture) -> dict[LowRankMode, Artifact] | None:
    """The artifacts that the engine needs; None when one was not exported. Raises ArtifactError."""
    modes: list[LowRankMode] = ["none", "linear"] if architecture.kind in ADAPTABLE_KINDS else ["none"]
    found: dict[LowRankMode, Artifact] = {}
    for mode in modes:
        artifact = read_artifact(root, ArtifactKey(architecture.kind, architecture.digest, mode))
        if artifact is None:
            return None
        found[mode] = artifact
    return found
