"""Single files of distilled models: their blocks are read off the tensors, and predict what diffusers predicts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.original_unet_names import block_starts, unet_name
from runtime.checkpoints.read_checkpoint import read_checkpoint, with_unet
from runtime.checkpoints.unread_tensors import warn_of_unread_tensors
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.files.located import Folder, SingleFile
from runtime.weights.weight_set import WeightSet
from tests.tiny.original import load, original_unet, write_original, write_sidecar
from tests.tiny.unets import SD15, SDXL, SSD, make_unet
from tests.unit.runtime.engines import assert_near, make_engine, predict, unet_inputs
from tests.unit.runtime.tiny_checkpoints import digest

Tensors = dict[str, torch.Tensor]
UNET = "model.diffusion_model."
TWO = {"text_encoder": "conditioner.embedders.0.transformer", "text_encoder_2": "conditioner.embedders.1.model"}
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHORT = {"attention_head_dim": 8, "block_out_channels": (16, 32, 32)}
# The blocks of the published models, on the tiny widths.
DISTILLED: dict[str, dict[str, Any]] = {
    "SSD-1B": SSD,
    "Segmind Vega": SDXL | {"transformer_layers_per_block": [1, 1, 2], "mid_block_type": "UNetMidBlock2D"},
    "KOALA-1B": SDXL | {"transformer_layers_per_block": [1, 2, 6], "layers_per_block": 1},
    "KOALA-700M": SDXL | {"transformer_layers_per_block": [1, 2, 5], "layers_per_block": 1, "mid_block_type": None},
    "other depths on both ways": SDXL
    | {
        "transformer_layers_per_block": [1, [1, 2], [3, 2]],
        "reverse_transformer_layers_per_block": [[1, 2, 3], [2, 2, 1], 1],
    },
    "BK-SDM-Base": SD15 | {"layers_per_block": 1},
    "BK-SDM-Small": SD15 | {"layers_per_block": 1, "mid_block_type": None},
    "BK-SDM-Tiny": SD15
    | SHORT
    | {
        "layers_per_block": 1,
        "mid_block_type": None,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    },
}
XL = [name for name, config in DISTILLED.items() if "addition_embed_type" in config]
BLOCKS = (
    "down_block_types",
    "mid_block_type",
    "up_block_types",
    "layers_per_block",
    "transformer_layers_per_block",
    "reverse_transformer_layers_per_block",
)


def _folder(tiny: Path, target: Path, unet: UNet2DConditionModel, kind: str) -> Path:
    """The tiny checkpoint `kind` with this UNet."""
    folder = Path(shutil.copytree(tiny / kind, target / kind))
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    return folder


def _single(folder: Path) -> Path:
    """The checkpoint in the folder as one file in the original layout."""
    path, is_xl = folder.parent / "single/distilled.safetensors", folder.name == "sdxl"
    write_original(path, folder, TWO if is_xl else {"text_encoder": "cond_stage_model.transformer"})
    write_sidecar(path, folder, ("tokenizer", "tokenizer_2") if is_xl else ("tokenizer",))
    return path


def _read(path: Path) -> Checkpoint:
    root = path.parents[1]
    return read_checkpoint(SingleFile(digest(path), root), digest)


def _kind(name: str) -> str:
    return "sdxl" if name in XL else "sd15"


@pytest.mark.parametrize("name", DISTILLED)
def test_a_single_file_predicts_what_diffusers_does(tiny: Path, tmp_path: Path, name: str) -> None:
    unet = make_unet(71, DISTILLED[name])
    folder = _folder(tiny, tmp_path, unet, _kind(name))
    inputs = unet_inputs("sdxl" if name in XL else "sd")
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]} if name in XL else None
    with torch.no_grad():
        expected = unet(inputs["latent"], inputs["t"], inputs["text"], added_cond_kwargs=added).sample
    for found in (_read(_single(folder)), read_checkpoint(Folder(folder, tmp_path), digest)):
        assert_near(predict(make_engine("unet", found.unet)[0], WeightSet(found.unet), inputs), expected)
        assert warn_of_unread_tensors(found.components) == []


@pytest.mark.parametrize("name", DISTILLED)
def test_the_configuration_is_that_of_diffusers(tiny: Path, tmp_path: Path, name: str) -> None:
    unet = make_unet(71, DISTILLED[name])
    found = _read(_single(_folder(tiny, tmp_path, unet, _kind(name)))).unet.config
    made = make_unet(
        71, {key: found[key] for key in BLOCKS} | {k: v for k, v in DISTILLED[name].items() if k not in BLOCKS}
    )
    assert {key: value.shape for key, value in made.state_dict().items()} == {
        key: value.shape for key, value in unet.state_dict().items()
    }


@pytest.mark.parametrize("form", ["original", "diffusers"])
def test_a_distilled_unet_alone_replaces_a_full_one(tiny: Path, tmp_path: Path, sdxl: Checkpoint, form: str) -> None:
    """And a full one replaces it: nothing of the blocks' configuration stays."""
    unet = make_unet(71, DISTILLED["SSD-1B"])
    unet.save_pretrained(tmp_path)
    stored = load_file(tmp_path / WEIGHTS)
    save_file(original_unet(stored) if form == "original" else stored, tmp_path / "alone.safetensors")
    found = with_unet(sdxl, SingleFile(digest(tmp_path / "alone.safetensors")), digest)
    inputs = unet_inputs("sdxl")
    added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]}
    with torch.no_grad():
        expected = unet(inputs["latent"], inputs["t"], inputs["text"], added_cond_kwargs=added).sample
    assert_near(predict(make_engine("unet", found.unet)[0], WeightSet(found.unet), inputs), expected)
    again = with_unet(found, SingleFile(digest(tiny / "sdxl/unet" / WEIGHTS)), digest).unet
    assert again.config["reverse_transformer_layers_per_block"] is None
    one, other = (predict(make_engine("unet", part)[0], WeightSet(part), inputs) for part in (again, sdxl.unet))
    assert torch.equal(one, other)


def test_other_numbers_of_resnet_layers_are_read(tiny: Path, tmp_path: Path, sdxl: Checkpoint) -> None:
    unet = make_unet(71, SDXL | {"layers_per_block": [1, 2, 1]})
    unet.save_pretrained(tmp_path)
    found = with_unet(sdxl, SingleFile(digest(tmp_path / WEIGHTS)), digest).unet
    assert found.config["layers_per_block"] == [1, 2, 1]
    make_engine("unet", found)


def _without(pattern: str) -> Callable[[Tensors], Tensors]:
    return lambda all_: {name: tensor for name, tensor in all_.items() if not re.match(UNET + pattern, name)}


def _deeper_middle(all_: Tensors) -> Tensors:
    """With one more transformer block in the middle."""
    last = f"{UNET}middle_block.1.transformer_blocks.2."
    return all_ | {k.replace("blocks.2.", "blocks.3."): t.clone() for k, t in all_.items() if k.startswith(last)}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("sd15", _without(r"middle_block\.1\."), r"incomplete: mid_block\.attentions\.0\.norm\.weight is missing"),
        ("sdxl", _without(r"middle_block\.1\."), r"incomplete: mid_block\.attentions\.0\.norm\.weight is missing"),
        # With the blocks of SD 1.x, no published model lacks the middle.
        ("sd15", _without(r"middle_block\.[12]\."), r"incomplete: mid_block\.attentions\.0\.norm\.weight is missing"),
        ("sd15", _without(r"middle_block\."), r"incomplete: mid_block\.attentions\.0\.norm\.weight is missing"),
        ("sd15", _without(r"input_blocks\.[45]\.1\."), r"down_blocks\.1 has no attention.* as in up_blocks\.2"),
        (
            "sd15",
            _without(r"output_blocks\.[678]\.1\.(?!conv)"),
            r"up_blocks\.2 has no attention.*as in down_blocks\.1",
        ),
        ("sd15", _without(r"input_blocks\.5\.1\."), r"down_blocks\.1 has 2 ResNet layers and 1 attention"),
        ("sdxl", _without(r"output_blocks\.2\.0\."), r"up_blocks\.0 has 2 ResNet layers"),
        ("sdxl", _without(r"output_blocks\.8\."), r"up_blocks\.2 has 2 ResNet layers; expected 3, one more"),
        ("sdxl", _without(r"output_blocks\.[678]\."), "3 down blocks and 2 up blocks; expected equal numbers"),
        ("sdxl", _without(r"output_blocks\.2\.2\.conv\."), "3 down blocks and 2 up blocks; expected equal numbers"),
        ("sdxl", _deeper_middle, r"4 transformer blocks in mid_block and 3 in down_blocks\.2.* not supported"),
    ],
)
def test_what_is_lost_or_cannot_be_built_is_named(
    tiny: Path, tmp_path: Path, name: str, change: Callable[[Tensors], Tensors], reason: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "allowed"))
    path = folder / f"single/{name}.safetensors"
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=reason):
        _read(path)


def test_some_lost_tensors_of_a_transformer_block_are_no_distillation(
    tiny: Path, tmp_path: Path, sdxl: Checkpoint
) -> None:
    lost = "down_blocks.2.attentions.0.transformer_blocks.2.norm1.weight"
    stored = {name: tensor for name, tensor in load(tiny / "sdxl", "unet").items() if name != lost}
    save_file(stored, tmp_path / "unet.safetensors")
    unet = with_unet(sdxl, SingleFile(digest(tmp_path / "unet.safetensors")), digest).unet
    with pytest.raises(WeightsError, match=f"unet lacks 1 of its tensors: {lost}"):
        make_engine("unet", unet)[0].bind(WeightSet(unet), never_cancelled)


def test_the_original_names_of_uneven_blocks() -> None:
    """Down blocks of one and of two layers; the up blocks have one more each, in the opposite order."""
    inputs = ["1.0.in_layers.2", "2.0.op", "3.0.in_layers.2", "4.1.proj_in"]
    outputs = ["2.0.in_layers.2", "2.1.conv", "3.0.in_layers.2", "4.0.in_layers.2"]
    names = [f"input_blocks.{name}.weight" for name in inputs] + [f"output_blocks.{name}.weight" for name in outputs]
    assert [unet_name(name, block_starts(names)) for name in names] == [
        "down_blocks.0.resnets.0.conv1.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.1.resnets.0.conv1.weight",
        "down_blocks.1.attentions.1.proj_in.weight",
        "up_blocks.0.resnets.2.conv1.weight",
        "up_blocks.0.upsamplers.0.conv.weight",
        "up_blocks.1.resnets.0.conv1.weight",
        "up_blocks.1.resnets.1.conv1.weight",
    ]
