"""ControlNet files of every layout, and files of their relatives, which are refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_controlnet import read_controlnet
from runtime.files.located import Folder, SingleFile
from runtime.networks.architecture import architecture_of
from tests.tiny.controlnets import WEIGHTS
from tests.unit.runtime.tiny_checkpoints import digest

KINDS = ("sd15", "sd2", "sdxl")


@pytest.fixture(params=KINDS)
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    found: Checkpoint = request.getfixturevalue(request.param)
    return found


def kind_of(checkpoint: Checkpoint) -> str:
    return checkpoint.unet.files[0].path.parent.parent.name


def folder(path: Path) -> Folder:
    return Folder(path, path)


def single(path: Path) -> SingleFile:
    return SingleFile(digest(path))


@pytest.mark.parametrize("ending", ["_original.safetensors", "_file.safetensors"])
def test_a_file_gives_the_network_of_the_folder(tiny: Path, checkpoint: Checkpoint, ending: str) -> None:
    networks = tiny / "controlnets"
    expected = read_controlnet(folder(networks / kind_of(checkpoint)), checkpoint.unet, digest)
    found = read_controlnet(single(networks / f"{kind_of(checkpoint)}{ending}"), checkpoint.unet, digest)
    assert dict(found.shapes) == dict(expected.shapes)
    # So they share exported graphs.
    assert architecture_of("controlnet", found.config) == architecture_of("controlnet", expected.config)


def test_a_folder_of_a_pipeline_has_it_in_a_folder(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(tiny / "controlnets" / "sd15", tmp_path / "controlnet")
    assert read_controlnet(folder(tmp_path), sd15.unet, digest).shapes


def test_given_options_win(tiny: Path, sd15: Checkpoint) -> None:
    path = tiny / "controlnets" / "sd15_original.safetensors"
    found = read_controlnet(single(path), sd15.unet, digest, config={"global_pool_conditions": True})
    assert found.config["global_pool_conditions"] is True
    with pytest.raises(CheckpointError, match="block_out_channels"):
        read_controlnet(single(path), sd15.unet, digest, config={"block_out_channels": "wide"})


@pytest.mark.parametrize(
    ("name", "pools"),
    [
        ("control_v11e_sd15_shuffle.pth", True),
        ("control_v11e_sd15_shuffle_fp16.safetensors", True),
        ("control_v11p_sd15_canny.pth", False),
        ("_shuffle/control.safetensors", False),
        ("control_shuffled.safetensors", False),
        ("", False),
    ],
)
def test_the_name_of_a_file_says_whether_it_pools(tiny: Path, sd15: Checkpoint, name: str, pools: bool) -> None:
    file = replace(single(tiny / "controlnets" / "sd15_original.safetensors"), name=name)
    assert read_controlnet(file, sd15.unet, digest).config.get("global_pool_conditions", False) is pools
    given = read_controlnet(file, sd15.unet, digest, config={"global_pool_conditions": False})
    assert given.config["global_pool_conditions"] is False


@pytest.mark.parametrize("own", KINDS)
def test_a_network_of_another_checkpoint_is_refused(tiny: Path, checkpoint: Checkpoint, own: str) -> None:
    if own == kind_of(checkpoint):
        return
    with pytest.raises(CheckpointError, match="does not fit the checkpoint"):
        read_controlnet(folder(tiny / "controlnets" / own), checkpoint.unet, digest)


RELATIVES = {
    "lora_controlnet": "Control-LoRA",
    "lllite_unet_input_blocks_4_1.down.weight": "ControlNet-LLLite",
    "task_embedding": "ControlNet-Union",
    "control_add_embedding.linear_1.weight": "ControlNet-Union",
    "control_model.input_blocks.1.0.in_layers.2.lora_up.weight": "ControlNet-LoRA",
    "down_blocks.0.ctrl_to_base.0.weight": "ControlNet-XS",
    "adapter.body.0.resnets.0.block1.weight": "T2I-Adapter",
    "image_proj.proj.weight": "IP-Adapter: give it in ip_adapter",
    "double_blocks.0.img_attn.qkv.weight": "made for Flux",
    "lora_unet_down_blocks_0.lora.weight": "a LoRA: give it in loras",
    "model.diffusion_model.input_blocks.0.0.weight": "contains no ControlNet",
}


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_is_refused_by_its_name(sd15: Checkpoint, tmp_path: Path, name: str) -> None:
    path = tmp_path / "network.safetensors"
    save_file({name: np.zeros((4, 4), np.float32)}, path)
    with pytest.raises(CheckpointError, match=RELATIVES[name]):
        read_controlnet(single(path), sd15.unet, digest)


CLASSES = {
    "ControlNetUnionModel": "ControlNet-Union",
    "T2IAdapter": "T2I-Adapter",
    "FluxControlNetModel": "ControlNet of Flux",
    "UNet2DConditionModel": "names another class: expected ControlNetModel",
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_folder_of_another_class_is_refused(tiny: Path, sd15: Checkpoint, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(tiny / "controlnets" / "sd15", tmp_path / "network")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"_class_name": name}))
    with pytest.raises(CheckpointError, match=CLASSES[name]):
        read_controlnet(folder(copy), sd15.unet, digest)


MORE = {
    "task_embedding": "it is a ControlNet-Union",
    "control_add_embedding.linear_1.weight": "it is a ControlNet-Union",
    "difference": "it is a difference ControlNet",
    "down_blocks.0.motion_modules.0.proj_in.weight": "it is a SparseCtrl network",
}


@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize("name", MORE)
def test_a_relative_with_all_tensors_of_a_controlnet_is_refused(
    tiny: Path, sd15: Checkpoint, tmp_path: Path, form: str, name: str
) -> None:
    copy = shutil.copytree(tiny / "controlnets" / "sd15", tmp_path / "network")
    save_file({**load_file(copy / WEIGHTS), name: np.zeros((4, 4), np.float32)}, copy / WEIGHTS)
    with pytest.raises(CheckpointError, match=MORE[name]):
        read_controlnet(folder(copy) if form == "folder" else single(copy / WEIGHTS), sd15.unet, digest)


LOST = (
    "controlnet_cond_embedding.conv_in.weight",
    "mid_block.resnets.0.conv1.weight",
    "down_blocks.0.resnets.0.conv1.weight",
)


@pytest.mark.parametrize("lost", LOST)
def test_a_network_without_a_part_is_refused(tiny: Path, sd15: Checkpoint, tmp_path: Path, lost: str) -> None:
    tensors = load_file(tiny / "controlnets" / "sd15" / WEIGHTS)
    del tensors[lost]
    path = tmp_path / "network.safetensors"
    save_file(tensors, path)
    with pytest.raises(CheckpointError):
        read_controlnet(single(path), sd15.unet, digest)
