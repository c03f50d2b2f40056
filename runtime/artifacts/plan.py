"""Reads a TensorRT plan, and checks that this machine may load it. Importing this imports no TensorRT."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.artifacts.artifact import (
    MANIFEST_FILE,
    OTHER_ARTIFACT,
    ArtifactError,
    read_artifact,
    read_compressed,
    read_manifest,
)
from runtime.artifacts.manifest import EXPORTER_VERSION, Manifest
from runtime.artifacts.plan_manifest import Flavour, PlanKey, PlanManifest, plan_folder

PLAN_FILE = "plan.xz"
RUNTIME_CACHE_FILE = "runtime_cache"  # written by the engine beside the plan


class Machine(NamedTuple):
    """What a plan is loaded with. capability: of the GPU, such as `8.9`."""

    flavour: Flavour
    version: str
    gpu: str
    capability: str


@dataclass(frozen=True)
class Plan:
    """A serialized TensorRT engine without weights. graph: what it was built from. folder: its place."""

    manifest: PlanManifest
    graph: Manifest
    plan: bytes
    folder: Path


def has_plans(root: Path) -> bool:
    """Whether any plan was built, of any flavour."""
    return any(root.glob(f"tensorrt*-{EXPORTER_VERSION}"))


def usable_plans(root: Path, machine: Machine, unverified: bool) -> list[PlanManifest]:
    """The manifests of all plans that this machine may load; see `read_plan`. Damaged ones are left out."""
    found = []
    for path in sorted(root.glob(f"{machine.flavour}-{EXPORTER_VERSION}/*/*/*/*/*/{MANIFEST_FILE}")):
        with suppress(ArtifactError):  # the request that needs it reports it
            manifest = read_manifest(path, PlanManifest)
            if _reason_against(manifest, machine, unverified) is None:
                found.append(manifest)
    return found


def read_plan(root: Path, key: PlanKey, machine: Machine, unverified: bool) -> Plan | None:
    """The plan of this GPU in the artifacts' folder `root`, else one that was built without a GPU; None: there is none.

    unverified: whether a plan may be used that was not compared with torch. Raises ArtifactError when the plan is
    damaged, or each is for another machine.
    """
    own, place = plan_folder(root, key, machine.flavour, machine.gpu, ()), key.folder(root, machine.flavour)
    others = sorted(found for found in place.iterdir() if found.is_dir() and found != own) if place.is_dir() else []
    first: ArtifactError | None = None
    for folder in (own, *others):
        try:
            if plan := read_plan_in(folder, root, key, machine, unverified):
                return plan
        except ArtifactError as error:
            first = first or error
    if first:
        raise first
    return None


def read_plan_in(folder: Path, root: Path, key: PlanKey, machine: Machine, unverified: bool) -> Plan | None:
    """The plan in `folder`; None: it was not built. See `read_plan`."""
    if not folder.is_dir():
        return None
    manifest = read_manifest(folder / MANIFEST_FILE, PlanManifest)
    if (manifest.key, manifest.flavour) != (key, machine.flavour):
        raise ArtifactError(folder / MANIFEST_FILE, OTHER_ARTIFACT)
    graph = read_artifact(root, key.graph)
    if graph is None or graph.manifest.graph_sha256 != manifest.graph_sha256:
        raise ArtifactError(folder / MANIFEST_FILE, "it was built from another graph")
    if reason := _reason_against(manifest, machine, unverified):
        raise ArtifactError(folder / MANIFEST_FILE, reason)
    return Plan(manifest, graph.manifest, read_compressed(folder / PLAN_FILE, manifest.plan_sha256), folder)


def _reason_against(manifest: PlanManifest, machine: Machine, unverified: bool) -> str | None:
    """Why this machine cannot use the plan; None: it can."""
    built_by = f"{manifest.flavour} {manifest.version}"
    if manifest.version != machine.version:
        return f"it was built by {built_by}, and {machine.version} is installed"
    if machine.capability not in manifest.targets:
        return f"it is for compute capability {', '.join(manifest.targets)}, and this GPU has {machine.capability}"
    if manifest.gpu not in (None, machine.gpu):
        return f"it was built on {manifest.gpu}, and this GPU is {machine.gpu}"
    if not (manifest.verified or unverified):
        return "it was not compared with torch on a GPU (LORIKEET_UNVERIFIED_PLANS=true uses it nevertheless)"
    return None
