"""An artifact that is not published yet."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.artifacts.artifact import Artifact


@dataclass(frozen=True)
class Made:
    """`compressed`: the content of its graph's file."""

    artifact: Artifact
    compressed: bytes
