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

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.folder import read_folder
from runtime.engines.engine import never_cancelled
from runtime.engines.select import Engines
from runtime.files.located import Folder
from runtime.files.store import Store
from runtime.jobs.job_table import JobRef
from runtime.lora.alphas import read_alphas
from runtime.lora.lora_file import read_lora
from runtime.lora.lora_receipt import make_lora_receipt
from runtime.plan import LoraPlan, Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
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


def test_a_lora_that_changed_is_not_bound(engines: Engines, planned: Plan, store: Store, lora: Path) -> None:
    plan = _with_lora(planned, store, lora)
    _spoil(lora)
    with pytest.raises(InvalidArgument, match=r"^loras\[0\]\.path: lora\.safetensors was changed"):
        bind_component(engines, "unet", plan, plan.checkpoint.unet, never_cancelled)


def test_files_that_stay_are_bound(engines: Engines, planned: Plan, store: Store, lora: Path) -> None:
    plan = _with_lora(planned, store, lora)
    assert not (_prediction(engines, plan) == _prediction(engines, planned)).all()
