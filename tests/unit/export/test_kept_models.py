"""Compiled models kept on disk: a restart compiles nothing, and no weights get another's model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.openvino.compiler import Compiler
from runtime.weights.weight_set import WeightSet
from tests.unit.export.engine_calls import assert_near, run
from tests.unit.export.openvino_engines import PLENTY, full_change, linear_lora, make_openvino
from tests.unit.runtime.engines import make_engine, unet_inputs
from tests.unit.runtime.tiny_checkpoints import read_checkpoint, read_component

pytestmark = pytest.mark.verify

INPUTS = unet_inputs("sd")
_UNET_FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def artifacts(exported: Path) -> Path:
    """The graphs, without compiled models."""
    shutil.rmtree(exported / "compiled", ignore_errors=True)
    return exported


@pytest.fixture
def sd15(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sd15")


@pytest.fixture
def other(tiny: Path, tmp_path: Path) -> Component:
    """sd15's UNet with other values, in a file of equal names, shapes and size."""
    folder = tmp_path / "other"
    shutil.copytree(tiny / "sd15/unet", folder)
    tensors = {name: tensor * 0.9 for name, tensor in load_file(folder / _UNET_FILE).items()}
    save_file(tensors, folder / _UNET_FILE, {"format": "pt"})
    return read_component("unet", folder)


@pytest.fixture
def compiling_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to make every further compiling an error."""

    def fail(*_: object) -> None:
        raise AssertionError("a model was compiled")

    return lambda: monkeypatch.setattr(Compiler, "compile", fail)


def _run(artifacts: Path, weights: WeightSet) -> torch.Tensor:
    """The prediction of a new engine, as after a restart."""
    engine, _ = make_openvino(artifacts, "unet", weights.base, kept=PLENTY)
    prediction: torch.Tensor = run(engine, weights, INPUTS)["prediction"]
    return prediction


def test_a_restart_compiles_nothing(artifacts: Path, sd15: Checkpoint, compiling_fails: Callable[[], None]) -> None:
    sets = [WeightSet(sd15.unet), linear_lora(sd15.unet, 1000), full_change(sd15.unet, 1)]
    first = [_run(artifacts, weights) for weights in sets]
    compiling_fails()
    again = [_run(artifacts, weights) for weights in sets]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    # Linear low-rank inputs of any LoRA belong to one compiled model.
    assert_near({"": _run(artifacts, linear_lora(sd15.unet, 2000))}, _expected(linear_lora(sd15.unet, 2000)))
    with pytest.raises(AssertionError, match="was compiled"):
        _run(artifacts, full_change(sd15.unet, 2))


def _expected(weights: WeightSet) -> dict[str, torch.Tensor]:
    return {"": run(make_engine("unet", weights.base)[0], weights, INPUTS)["prediction"]}


def test_checkpoints_of_one_architecture_have_their_own_models(
    artifacts: Path, sd15: Checkpoint, other: Component, compiling_fails: Callable[[], None]
) -> None:
    for weights in (WeightSet(sd15.unet), WeightSet(other)):
        assert_near({"": _run(artifacts, weights)}, _expected(weights))
    compiling_fails()
    for weights in (WeightSet(other), WeightSet(sd15.unet)):
        assert_near({"": _run(artifacts, weights)}, _expected(weights))


def test_the_text_encoder_keeps_its_embeddings(
    artifacts: Path, sd15: Checkpoint, compiling_fails: Callable[[], None]
) -> None:
    component, ids = sd15.text_encoders[0], torch.arange(77)[None]

    def pooled() -> torch.Tensor:
        engine, _ = make_openvino(artifacts, "text_encoder", component, kept=PLENTY)
        found: torch.Tensor = run(engine, WeightSet(component), {"ids": ids})["pooled"]
        return found

    first = pooled()
    compiling_fails()
    assert torch.equal(pooled(), first)


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _garbage(data: bytes) -> bytes:
    """With the digest of its content: not damaged, but no compiled model."""
    content = data[32 : len(data) // 2]
    return hashlib.sha256(content).digest() + content


@pytest.mark.parametrize("damage", [_flip, _garbage])
def test_a_damaged_model_is_compiled_again(
    artifacts: Path, sd15: Checkpoint, damage: Callable[[bytes], bytes], compiling_fails: Callable[[], None]
) -> None:
    first = _run(artifacts, WeightSet(sd15.unet))
    (path,) = (artifacts / "compiled").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(_run(artifacts, WeightSet(sd15.unet)), first)
    compiling_fails()
    assert torch.equal(_run(artifacts, WeightSet(sd15.unet)), first)
