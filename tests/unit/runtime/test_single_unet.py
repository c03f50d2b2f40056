"""A UNet alone in a file, which replaces that of a checkpoint, and what a single file says that its UNet predicts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_checkpoint import read_checkpoint, with_unet
from runtime.files.located import Folder, SingleFile
from runtime.weights.weight_set import WeightSet
from tests.tiny.original import load, original_unet
from tests.unit.runtime.engines import make_engine, predict, unet_inputs
from tests.unit.runtime.single_files import change_sidecar, change_tensors, read_single
from tests.unit.runtime.tiny_checkpoints import base_tensors, digest

UNET_ROOT = "model.diffusion_model."


def _prediction(path: Path, folder: Path) -> str:
    change_sidecar(path, scheduler={})
    found: str = read_single(path, folder).scheduler["prediction_type"]
    return found


@pytest.mark.parametrize(("name", "mark", "expected"), [("sdxl", "v_pred", "v_prediction"), ("sdxl", "x", "epsilon")])
def test_a_mark_says_what_is_predicted(tiny_copy: Path, name: str, mark: str, expected: str) -> None:
    path = change_tensors(tiny_copy / f"single/{name}.safetensors", lambda all_: all_ | {mark: torch.zeros(0)})
    assert _prediction(path, tiny_copy) == expected


def test_a_mark_asks_for_zero_terminal_snr(tiny_copy: Path) -> None:
    path = change_tensors(tiny_copy / "single/sdxl.safetensors", lambda all_: all_ | {"ztsnr": torch.zeros(0)})
    assert read_single(path, tiny_copy).scheduler["rescale_betas_zero_snr"] is True


@pytest.mark.parametrize(("spread", "expected"), [(0.3, "v_prediction"), (0.01, "epsilon")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sd2_shows_what_it_predicts(tiny_copy: Path, spread: float, expected: str, dtype: torch.dtype) -> None:
    key = f"{UNET_ROOT}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    told = {key: torch.linspace(-spread, spread, 16).to(dtype)}
    assert (
        _prediction(change_tensors(tiny_copy / "single/sd2.safetensors", lambda all_: all_ | told), tiny_copy)
        == expected
    )


@pytest.mark.parametrize("size", [0, 1 << 17])
def test_a_telltale_of_no_bias_size_tells_nothing(tiny_copy: Path, size: int) -> None:
    key = f"{UNET_ROOT}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    odd = {key: torch.linspace(-1, 1, size)}
    assert (
        _prediction(change_tensors(tiny_copy / "single/sd2.safetensors", lambda all_: all_ | odd), tiny_copy)
        == "epsilon"
    )


def _unet_file(tiny: Path, path: Path, form: str) -> Path:
    """The UNet distilled with guidance, alone in a file."""
    if form == "original":
        save_file(original_unet(load(tiny / "lcm", "unet")), path)
    elif form == "rooted":
        save_file(
            {UNET_ROOT + name: tensor for name, tensor in original_unet(load(tiny / "lcm", "unet")).items()}, path
        )
    else:
        shutil.copyfile(tiny / "lcm/unet/diffusion_pytorch_model.safetensors", path)
    return path


@pytest.fixture
def lcm(tiny: Path, sd15: Checkpoint) -> Component:
    return with_unet(sd15, Folder(tiny / "lcm", tiny), digest).unet


@pytest.mark.parametrize("form", ["original", "rooted", "diffusers"])
def test_a_unet_alone_is_the_one_of_its_folder(
    tiny: Path, sd15: Checkpoint, lcm: Component, tmp_path: Path, form: str
) -> None:
    """Without a sidecar: what shapes do not tell is as in the UNet that it replaces."""
    file = SingleFile(digest(_unet_file(tiny, tmp_path / "unet.safetensors", form)))
    checkpoint = with_unet(sd15, file, digest)
    found, expected = base_tensors(checkpoint.unet), base_tensors(lcm)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    inputs = unet_inputs("sd") | {"timestep_cond": torch.randn(2, 12)}
    one, other = (predict(make_engine("unet", part)[0], WeightSet(part), inputs) for part in (checkpoint.unet, lcm))
    assert torch.equal(one, other)


def test_the_mark_of_a_unet_alone_counts(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    path = _unet_file(tiny, tmp_path / "unet.safetensors", "diffusers")
    assert with_unet(sd15, SingleFile(digest(path)), digest).scheduler == sd15.scheduler
    change_tensors(path, lambda all_: all_ | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    expected = sd15.scheduler | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert with_unet(sd15, SingleFile(digest(path)), digest).scheduler == expected


@pytest.mark.parametrize(
    ("own", "spread", "expected"), [("epsilon", 0.3, "v_prediction"), ("v_prediction", 0.01, "epsilon")]
)
def test_an_sd2_unet_alone_shows_what_it_predicts(
    tiny: Path, tiny_copy: Path, own: str, spread: float, expected: str
) -> None:
    base = read_single(tiny / "single/sd2.safetensors", tiny)
    base = base.model_copy(update={"scheduler": base.scheduler | {"prediction_type": own}})
    told = {f"{UNET_ROOT}output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.linspace(-spread, spread, 16)}
    path = change_tensors(tiny_copy / "single/sd2.safetensors", lambda all_: all_ | told)
    found = with_unet(base, SingleFile(digest(path)), digest)
    assert found.scheduler["prediction_type"] == expected
    assert found.unet.config["upcast_attention"] or expected == "epsilon"


def test_a_sidecar_of_a_unet_alone_says_what_is_predicted(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    path = _unet_file(tiny, tmp_path / "unet.safetensors", "diffusers")
    path.with_suffix(".config.json").write_text(json.dumps({"scheduler": {"prediction_type": "v_prediction"}}))
    file = SingleFile(digest(path), inside=tmp_path)
    assert with_unet(sd15, file, digest).scheduler == sd15.scheduler | {"prediction_type": "v_prediction"}


def test_a_unet_may_be_a_folder_of_its_own_or_of_a_checkpoint(tiny: Path, sd15: Checkpoint, lcm: Component) -> None:
    assert with_unet(sd15, Folder(tiny / "lcm/unet", tiny), digest).unet == lcm
    assert with_unet(sd15, Folder(tiny / "sd15", tiny), digest) == sd15


def test_a_whole_checkpoint_lends_its_unet(tiny: Path, sd15: Checkpoint) -> None:
    found = with_unet(sd15, SingleFile(digest(tiny / "single/sd15.safetensors")), digest)
    assert found.unet.shapes == sd15.unet.shapes
    assert found.vae == sd15.vae


def test_a_plain_unet_replaces_a_distilled_one(tiny: Path, sd15: Checkpoint, lcm: Component) -> None:
    distilled = sd15.model_copy(update={"unet": lcm})
    found = with_unet(distilled, SingleFile(digest(tiny / "single/sd15.safetensors")), digest)
    assert "time_cond_proj_dim" not in found.unet.config


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("single/sdxl.safetensors", "the UNet is of SDXL, the checkpoint is not"),
        ("sdxl", "the UNet is of SDXL, the checkpoint is not"),
        ("single/sd2.safetensors", r"sum 40 \(its cross_attention_dim\), found \[32\]"),
        ("sd15/vae", "config.json names another class: expected UNet2DConditionModel"),
        ("sd15/vae/diffusion_pytorch_model.safetensors", "no Stable Diffusion UNet"),
        ("loras/sd15/peft.safetensors", "no Stable Diffusion UNet"),
        ("loras", "its file config.json is missing"),
    ],
)
def test_another_unet_is_refused(tiny: Path, sd15: Checkpoint, source: str, reason: str) -> None:
    path = tiny / source
    given = SingleFile(digest(path), tiny) if path.is_file() else Folder(path, tiny)
    with pytest.raises(CheckpointError, match=reason):
        with_unet(sd15, given, digest)


def test_a_unet_alone_is_no_checkpoint(tiny: Path, tmp_path: Path) -> None:
    for form in ("original", "diffusers"):
        file = SingleFile(digest(_unet_file(tiny, tmp_path / f"{form}.safetensors", form)))
        with pytest.raises(CheckpointError, match="give it as unet_name"):
            read_checkpoint(file, digest)
