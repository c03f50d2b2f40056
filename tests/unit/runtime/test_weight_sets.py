"""What is bound is what was planned: a file that changes between `prepare` and a stage is an error."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.folder import read_folder
from runtime.checkpoints.read_ic_light import read_ic_light
from runtime.engines.engine import never_cancelled
from runtime.engines.select import Engines
from runtime.files.located import Folder
from runtime.files.store import Store
from runtime.jobs.job_table import JobRef
from runtime.lora.alphas import read_alphas
from runtime.lora.lora_file import read_lora
from runtime.lora.lora_receipt import make_lora_receipt
from runtime.plan import IcLightPlan, LoraPlan, Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import rows_of, unet_inputs
from tests.unit.runtime.plans import make_plan

UNET = "unet/diffusion_pytorch_model.safetensors"
TICK_SECONDS = 0.05  # file systems' clocks tick every few milliseconds


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny / "sd15", tmp_path / "checkpoint"))


@pytest.fixture
def engines(settings: Settings) -> Engines:
    return Engines(settings, "unet")


@pytest.fixture
def lora(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(tiny / "loras/sd15/peft.safetensors", tmp_path / "lora.safetensors"))


@pytest.fixture
def ic_light(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(tiny / "ic_light/fc.safetensors", tmp_path / "ic_light.safetensors"))


@pytest.fixture
def planned(folder: Path, store: Store, job: JobRef) -> Iterator[Plan]:
    plan = make_plan(read_folder(Folder(folder, folder), store.digest_local), job)
    time.sleep(TICK_SECONDS)
    yield plan


def _with_lora(plan: Plan, store: Store, path: Path) -> Plan:
    stored, contents = store.digest_local(path), read_lora(path, plan.checkpoint.adaptable)
    time.sleep(TICK_SECONDS)
    lora = LoraPlan(
        field="loras[0].path",
        path=path,
        digest=stored.digest,
        fingerprint=stored.fingerprint,
        scale=1.0,
        components=frozenset({"unet", "text_encoder"}),
        receipt=make_lora_receipt(contents, read_alphas(stored, contents)),
    )
    return plan.model_copy(update={"loras": (lora,)})


def _with_ic_light(plan: Plan, store: Store, path: Path) -> Plan:
    stored = store.digest_local(path)
    file = read_ic_light(stored, plan.checkpoint.unet)
    time.sleep(TICK_SECONDS)
    ic_light = IcLightPlan(
        path=path, digest=stored.digest, fingerprint=stored.fingerprint, in_channels=file.in_channels
    )
    return plan.model_copy(update={"ic_light": ic_light})


def _spoil(path: Path) -> None:
    """Other weights in place, of the same size and time."""
    content, written = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    content[-2000:] = bytes(2000)
    path.write_bytes(content)
    os.utime(path, ns=(written, written))


def _prediction(engines: Engines, plan: Plan) -> Any:
    bound = bind_component(engines, "unet", plan, plan.checkpoint.unet, never_cancelled)
    (found,) = bound.engine.run([(bound.binding, row) for row in rows_of(unet_inputs("sd", rows=1))])
    bound.release()
    return found["prediction"]


@pytest.mark.parametrize("field", ["model_name", "unet_name", "controlnets[0].path"])
def test_a_component_that_changed_is_not_bound(engines: Engines, planned: Plan, folder: Path, field: str) -> None:
    component = planned.checkpoint.unet.model_copy(update={"field": field})
    _spoil(folder / UNET)
    with pytest.raises(InvalidArgument, match=f"^{re.escape(field)}: diffusion_pytorch_model.safetensors was changed"):
        bind_component(engines, "unet", planned, component, never_cancelled)


def test_a_checkpoint_that_changed_is_not_kept_under_the_others_digest(
    engines: Engines, planned: Plan, folder: Path, tiny: Path, sd15: Checkpoint
) -> None:
    _spoil(folder / UNET)
    with pytest.raises(InvalidArgument):
        bind_component(engines, "unet", planned, planned.checkpoint.unet, never_cancelled)
    genuine = make_plan(sd15)
    assert genuine.checkpoint.unet.digest == planned.checkpoint.unet.digest
    expected = _prediction(Engines(Settings(device="cpu", precision="float32", threads=1), "unet"), genuine)
    assert (_prediction(engines, genuine) == expected).all()


@pytest.mark.parametrize("calls", [0, 1, 50])
@pytest.mark.parametrize("field", ["loras[0].path", "ic_light_model_url"])
def test_changes_that_changed_are_not_bound(
    engines: Engines, planned: Plan, store: Store, lora: Path, ic_light: Path, field: str, calls: int
) -> None:
    """Before they are opened, before they are read, or while they are: their own field is named."""
    path = lora if field == "loras[0].path" else ic_light
    plan = _with_ic_light(_with_lora(planned, store, lora), store, ic_light)
    moments = iter(range(calls))

    def check_cancelled() -> None:
        if next(moments, None) is None:
            _spoil(path)

    if calls == 0:
        _spoil(path)
    with pytest.raises(InvalidArgument, match=f"^{re.escape(field)}: {path.name} was changed"):
        bind_component(engines, "unet", plan, plan.unet, check_cancelled)


def test_changes_that_change_after_the_last_read_are_not_bound(
    monkeypatch: pytest.MonkeyPatch, engines: Engines, planned: Plan, store: Store, ic_light: Path
) -> None:
    """They are not kept under the digest of the file that was planned."""
    plan = _with_ic_light(planned, store, ic_light)
    check_unchanged = WeightSet.check_unchanged

    def spoil_and_check(weights: WeightSet) -> None:
        _spoil(ic_light)
        check_unchanged(weights)

    monkeypatch.setattr(WeightSet, "check_unchanged", spoil_and_check)
    with pytest.raises(InvalidArgument, match=r"^ic_light_model_url: ic_light\.safetensors was changed"):
        bind_component(engines, "unet", plan, plan.unet, never_cancelled)


def test_an_ic_light_of_another_dtype_is_refused(planned: Plan, store: Store, ic_light: Path) -> None:
    """When the request is prepared: the denoiser could not read it."""
    tensors = load_file(ic_light)
    save_file(tensors | {"conv_out.bias": tensors["conv_out.bias"].to(torch.float8_e4m3fn)}, ic_light)
    with pytest.raises(CheckpointError, match=r"^conv_out\.bias has dtype F8_E4M3; expected one of F64, F32"):
        read_ic_light(store.digest_local(ic_light), planned.checkpoint.unet)


def test_files_that_stay_are_bound(engines: Engines, planned: Plan, store: Store, lora: Path) -> None:
    plan = _with_lora(planned, store, lora)
    assert not (_prediction(engines, plan) == _prediction(engines, planned)).all()
