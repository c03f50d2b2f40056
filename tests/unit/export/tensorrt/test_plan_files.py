"""Plans on disk: what is published is read back, and a plan for another machine is refused with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.publish import exporting, publish_plan
from runtime.artifacts.artifact import GRAPH_FILE, MANIFEST_FILE, ArtifactError
from runtime.artifacts.plan import PLAN_FILE, Machine, has_plans, read_plan
from runtime.artifacts.plan_manifest import PlanKey, PlanManifest
from runtime.settings import ROOT
from tests.unit.export.conftest import Graphs
from tests.unit.export.tensorrt.plans import MACHINE, compress, make_plan


@pytest.fixture
def key(graphs: Graphs, tmp_path: Path) -> PlanKey:
    """The key of a plan that is published in `tmp_path`, beside its graph."""
    network, artifact = graphs.network("sd15 vae_decoder"), graphs.artifact("sd15 vae_decoder", "none")
    source, place = artifact.manifest.key.folder(graphs.root), artifact.manifest.key.folder(tmp_path)
    place.mkdir(parents=True)
    for name in (GRAPH_FILE, MANIFEST_FILE):
        (place / name).write_bytes((source / name).read_bytes())
    assert not has_plans(tmp_path)
    plan = make_plan(artifact, network.architecture, tmp_path)
    with exporting(tmp_path):
        folder = publish_plan(tmp_path, plan.manifest, compress(plan.plan))
    assert folder == plan.manifest.folder(tmp_path)
    return plan.manifest.key


def _manifest(root: Path, key: PlanKey) -> Path:
    return _folder(root, key) / MANIFEST_FILE


def _folder(root: Path, key: PlanKey, gpu: str = MACHINE.gpu) -> Path:
    return key.folder(root, MACHINE.flavour) / gpu.replace(" ", "-")


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_published_plan_is_read_back(tmp_path: Path, key: PlanKey) -> None:
    assert has_plans(tmp_path)
    plan = read_plan(tmp_path, key, MACHINE, unverified=False)
    assert plan is not None
    assert plan.manifest.plan_bytes == len(plan.plan) and plan.folder == _folder(tmp_path, key)


def test_a_plan_that_was_not_built_is_none(tmp_path: Path, key: PlanKey) -> None:
    other = key.model_copy(update={"precision": "bfloat16"})
    assert read_plan(tmp_path, other, MACHINE, unverified=False) is None
    assert read_plan(tmp_path, key, MACHINE._replace(flavour="tensorrt"), unverified=False) is None


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (MACHINE._replace(version="1.8.0"), r"built by tensorrt_rtx 1\.7\.1\.116, and 1\.8\.0 is installed"),
        (MACHINE._replace(capability="9.0"), r"for compute capability 8\.9, and this GPU has 9\.0"),
        (MACHINE._replace(gpu="NVIDIA L40S"), "built on NVIDIA L4, and this GPU is NVIDIA L40S"),
    ],
)
def test_a_plan_for_another_machine_is_refused(tmp_path: Path, key: PlanKey, machine: Machine, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason) as error:
        read_plan(tmp_path, key, machine, unverified=True)
    assert "make export" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"graph_sha256": "00"}, "built from another graph"),
        ({"plan_sha256": "00"}, "SHA-256"),
        ({"flavour": "tensorrt"}, "another artifact"),
        ({"verified": "maybe"}, "verified"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, key: PlanKey, changes: dict[str, Any], reason: str) -> None:
    _edit(_manifest(tmp_path, key), **changes)
    with pytest.raises(ArtifactError, match=reason):
        read_plan(tmp_path, key, MACHINE, unverified=True)


def test_a_plan_whose_file_is_missing_is_refused(tmp_path: Path, key: PlanKey) -> None:
    (_folder(tmp_path, key) / PLAN_FILE).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_plan(tmp_path, key, MACHINE, unverified=True)


def test_an_unverified_plan_is_used_only_by_a_setting(tmp_path: Path, key: PlanKey) -> None:
    _edit(_manifest(tmp_path, key), verified=False, gpu=None)
    with pytest.raises(ArtifactError, match="LORIKEET_UNVERIFIED_PLANS"):
        read_plan(tmp_path, key, MACHINE, unverified=False)
    assert read_plan(tmp_path, key, MACHINE._replace(gpu="any"), unverified=True) is not None


def _publish(root: Path, key: PlanKey, **changes: Any) -> None:
    """Publish the plan of `key` once more, as another machine would."""
    manifest = PlanManifest.model_validate_json(_manifest(root, key).read_text()).model_copy(update=changes)
    with exporting(root):
        publish_plan(root, manifest, (_folder(root, key) / PLAN_FILE).read_bytes())


def test_each_gpu_has_its_own_plan(tmp_path: Path, key: PlanKey) -> None:
    other = MACHINE._replace(gpu="NVIDIA L40S")
    _publish(tmp_path, key, gpu=other.gpu)
    for machine in (MACHINE, other):
        plan = read_plan(tmp_path, key, machine, unverified=False)
        assert plan is not None and plan.manifest.gpu == machine.gpu
        assert plan.folder == _folder(tmp_path, key, machine.gpu)


def test_an_unverified_plan_replaces_no_verified_one(tmp_path: Path, key: PlanKey) -> None:
    """It serves the GPUs that have no plan of their own, or a damaged one."""
    _publish(tmp_path, key, gpu=None, targets=("8.6", "8.9"), verified=False, weights="placeholders")

    def is_verified(machine: Machine) -> bool:
        plan = read_plan(tmp_path, key, machine, unverified=True)
        assert plan is not None
        return plan.manifest.verified

    assert is_verified(MACHINE)
    assert not is_verified(MACHINE._replace(gpu="NVIDIA A10", capability="8.6"))
    (_folder(tmp_path, key) / PLAN_FILE).write_bytes(b"")
    assert not is_verified(MACHINE)
    with pytest.raises(ArtifactError, match=f"{_folder(tmp_path, key)}.*SHA-256"):
        read_plan(tmp_path, key, MACHINE, unverified=False)


def test_reading_a_plan_imports_no_tensorrt() -> None:
    code = "import sys, runtime.artifacts.plan; print(*{'torch', 'onnx', 'tensorrt_rtx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr[-2000:]
