"""Builds the plans of a checkpoint's architectures, and publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from export.errors import ExportError
from export.progress import Show, Stopwatch, console, progress_of
from export.publish import publish_plan
from export.tensorrt.make_plan import PlanMaker
from export.tensorrt.profiles import default_profiles, read_profiles
from runtime.artifacts.artifact import ArtifactError, read_artifact
from runtime.artifacts.plan import Machine, read_plan_in
from runtime.artifacts.plan_manifest import PlanKey, Precision, Profile, plan_folder
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.machine import this_machine
from runtime.engines.tensorrt.plan_key import plan_key
from runtime.networks.architecture import Architecture

# Without a GPU: RTX 30, 40 and 50, A100, and cards of their generations.
_TARGETS = ("8.0", "8.6", "8.9", "12.0")


def export_plans(
    root: Path,
    architectures: Mapping[str, Architecture],
    precision: Precision,
    profiles: Path | None = None,
    targets: tuple[str, ...] = (),
) -> None:
    """Build the missing plans of exported graphs inside of `exporting`.

    profiles: the sizes of calls; a plan of other sizes is built again. Without it, a plan of any sizes is kept.
    targets: compute capabilities; by default this machine's GPU, or without a GPU the usual ones. Raises ExportError
    and OSError.
    """
    if not targets and not torch.cuda.is_available():
        targets = _TARGETS
    maker = PlanMaker(root, read_profiles(profiles or default_profiles(architectures.values())), targets)
    with progress_of(architectures.keys()) as steps:
        for name, show in steps:
            architecture = architectures[name]
            profile = maker.profiles.get(architecture.kind) if profiles else None
            _export_plan(name, architecture, maker, precision, profile, show)


def _export_plan(
    name: str, architecture: Architecture, maker: PlanMaker, precision: Precision, profile: Profile | None, show: Show
) -> None:
    """profile: the sizes that a plan must have to be kept; None: any."""
    root = maker.root
    key = plan_key(architecture, getattr(torch, precision))
    machine = Machine(flavour.NAME, flavour.VERSION, "", maker.targets[0]) if maker.targets else this_machine()
    place = plan_folder(root, key, flavour.NAME, None if maker.targets else machine.gpu, maker.targets)
    if _is_built(place, root, key, machine, profile, unverified=bool(maker.targets)):
        console.print(f"{name}: built already, {place}", markup=False)
        return
    graph = read_artifact(root, key.graph)
    if graph is None:
        raise ExportError(f"{name}: its graph was not exported ({key.low_rank})")
    watch = Stopwatch()
    made = maker.make(graph, architecture, key.precision, show)
    publish_plan(root, made.plan.manifest, made.compressed)
    state = "verified" if made.plan.manifest.verified else "not verified"
    sizes = f"{len(made.plan.plan) / 1e6:.0f} MB, {len(made.compressed) / 1e6:.1f} MB compressed"
    console.print(f"{name}: {key.precision} plan built in {watch}, {sizes}, {state}, {place}", markup=False)


def _is_built(
    place: Path, root: Path, key: PlanKey, machine: Machine, profile: Profile | None, unverified: bool
) -> bool:
    """Whether a plan of the profile is there that `machine` may load."""
    try:
        plan = read_plan_in(place, root, key, machine, unverified)
    except ArtifactError as error:
        console.print(f"{error}. It is built again now.", style="yellow", markup=False)
        return False
    if plan and profile and plan.manifest.profile != profile:
        console.print(f"{place}: it has other sizes of calls. It is built again now.", style="yellow", markup=False)
        return False
    return plan is not None
