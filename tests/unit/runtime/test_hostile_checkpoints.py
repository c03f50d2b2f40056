"""Checkpoints that are hostile, or whose networks do not fit Stable Diffusion or each other, are refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.checkpoints.checks import CheckpointError
from tests.unit.runtime.checkpoint_folders import (
    CONFIGS,
    UNET,
    VAE,
    WEIGHTS,
    assert_refused,
    change_json,
    change_weights,
    write,
)
from tests.unit.runtime.tiny_checkpoints import copy_folder, read_checkpoint


def test_an_inpainting_unet_is_refused(sd15_folder: Path) -> None:
    change_weights(sd15_folder / UNET, lambda all_: all_ | {"conv_in.weight": np.zeros((16, 9, 3, 3), np.float32)})
    assert_refused(sd15_folder, "the UNet has 9 input channels")


def test_an_lcm_unet_that_lies_about_its_guidance_is_refused(sd15_folder: Path) -> None:
    change_json(sd15_folder / "unet/config.json", time_cond_proj_dim=2)
    assert_refused(sd15_folder, "time_cond_proj_dim")


@pytest.mark.parametrize("values", [{"latents_mean": [-1.6, 1.8, -1.3, 2.5]}, {"latents_std": [8.4, 5.9, 6.5, 5.2]}])
def test_a_vae_that_normalizes_its_latents_is_refused(sd15_folder: Path, values: dict[str, Any]) -> None:
    change_json(sd15_folder / "vae/config.json", **values)
    assert_refused(sd15_folder, f"its vae normalizes its latents .{next(iter(values))} in its configuration")
    change_json(sd15_folder / "vae/config.json", **dict.fromkeys(values))
    read_checkpoint(sd15_folder)


def test_text_encoders_of_another_width_are_refused(tiny: Path, sd15_folder: Path) -> None:
    shutil.rmtree(sd15_folder / "text_encoder")
    copy_folder(tiny / "sdxl" / "text_encoder_2", sd15_folder / "text_encoder")
    change_json(sd15_folder / "text_encoder/config.json", architectures=["CLIPTextModel"])
    assert_refused(sd15_folder, r"sum 32 \(its cross_attention_dim\), found \[48\]")


def test_a_vae_of_another_family_is_refused(sd15_folder: Path) -> None:
    sixteen = {"decoder.conv_in.weight": np.zeros((32, 16, 3, 3), np.float32)}
    change_weights(sd15_folder / VAE, lambda tensors: tensors | sixteen)
    assert_refused(sd15_folder, "VAE")


@pytest.mark.parametrize(
    ("name", "kind"), [("unet", "Transformer2DModel"), ("vae", "AutoencoderTiny"), ("text_encoder", "T5EncoderModel")]
)
def test_another_kind_of_network_is_refused(sd15_folder: Path, name: str, kind: str) -> None:
    change_json(sd15_folder / name / "config.json", _class_name=kind, architectures=[kind])
    assert_refused(sd15_folder, f"{name}/config.json names another class")


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("dtype", ["int8", "int64", "bool"])
def test_quantized_weights_are_refused(sd15_folder: Path, name: str, dtype: str) -> None:
    change_weights(sd15_folder / name, lambda all_: {key: tensor.astype(dtype) for key, tensor in all_.items()})
    assert_refused(sd15_folder, "has dtype (I8|I64|BOOL)")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ('{"a": ' * 100_000, "is not JSON"),
        ('{"a": ' * 300 + "1" + "}" * 300, "is nested deeper"),
        (b"{" + b" " * (8 << 20) + b"}", "is too large"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_hostile_json_is_refused(sd15_folder: Path, name: str, content: str | bytes, reason: str) -> None:
    write(sd15_folder / name, content)
    assert_refused(sd15_folder, f"{name} {reason}")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("unet", {"sample_size": "large"}),
        ("unet", {"sample_size": 10**9}),
        ("unet", {"sample_size": [64]}),
        ("unet", {"sample_size": -64}),
        ("unet", {"layers_per_block": 10**6}),
        ("unet", {"transformer_layers_per_block": [1, 10**5]}),
        ("unet", {"block_out_channels": [16] * 10**5}),
        ("vae", {"block_out_channels": 5}),
        ("vae", {"block_out_channels": [16] * 60}),
        ("vae", {"down_block_types": ["DownEncoderBlock2D"] * 2}),
        ("vae", {"up_block_types": ["UpDecoderBlock2D"] * 5}),
        ("vae", {"scaling_factor": 0}),
        ("vae", {"scaling_factor": "0.18215"}),
        ("vae", {"scaling_factor": math.nan}),
        ("vae", {"scaling_factor": 10**400}),
        ("text_encoder", {"num_hidden_layers": 10**8}),
        ("text_encoder", {"max_position_embeddings": 10**10}),
        # What would take ages to lay out although each number is small, or fill the memory when it runs.
        ("unet", {"layers_per_block": 20}),
        ("unet", {"transformer_layers_per_block": 100}),
        ("unet", {"transformer_layers_per_block": [[1000, 1], [1, 1], [1, 1], 1]}),
        ("unet", {"downsample_padding": 2000}),
        # What would fail in the midst of the work.
        ("unet", {"mid_block_scale_factor": "x"}),
        ("unet", {"freq_shift": None}),
        ("unet", {"norm_eps": []}),
        ("unet", {"norm_num_groups": -1}),
        ("unet", {"num_class_embeds": 5}),
        ("vae", {"in_channels": 1}),
        ("vae", {"out_channels": 1}),
        ("vae", {"shift_factor": 0.1}),
        ("text_encoder", {"num_hidden_layers": 0}),
        ("text_encoder", {"max_position_embeddings": 10}),
        ("text_encoder", {"layer_norm_eps": "x"}),
    ],
)
def test_a_hostile_configuration_is_refused(sd15_folder: Path, name: str, values: dict[str, Any]) -> None:
    change_json(sd15_folder / name / "config.json", **values)
    assert_refused(sd15_folder, f"the configuration of its {name} is invalid: {next(iter(values))}")


def test_a_class_that_is_no_text_is_refused(sd15_folder: Path) -> None:
    change_json(sd15_folder / "unet/config.json", architectures=5, _class_name={})
    assert_refused(sd15_folder, "unet/config.json names another class")


@pytest.mark.parametrize("values", [{"addition_time_embed_dim": 9}, {"addition_time_embed_dim": None}])
def test_sizes_that_the_unet_cannot_take_are_refused(tiny: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    folder = copy_folder(tiny / "sdxl", tmp_path / "checkpoint")
    change_json(folder / "unet/config.json", **values)
    assert_refused(folder, "the UNet's add_embedding has an input of ")


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": ["a.safetensors"]},
        {"weight_map": {"a": 5}},
        {"weight_map": {"a": "../../secret.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "a\0b"}},
        {"weight_map": {"a": "x" * 5000}},
        {"weight_map": {"a": "missing.safetensors"}},
        {"weight_map": {}},
    ],
)
def test_a_hostile_index_is_refused(sd15_folder: Path, index: dict[str, Any]) -> None:
    (sd15_folder.parent / "secret.safetensors").write_bytes(b"secret")
    write(sd15_folder / f"{UNET}.index.json", index)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(sd15_folder)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [*WEIGHTS, *CONFIGS, "tokenizer/vocab.json", "tokenizer/added_tokens.json"])
def test_a_link_that_leads_out_is_refused(sd15_folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("{}")
    (sd15_folder / name).unlink(missing_ok=True)
    (sd15_folder / name).symlink_to(outside)
    assert_refused(sd15_folder, f"{name} is outside the folder")


def test_a_link_that_leads_nowhere_out_says_the_same(sd15_folder: Path, tmp_path: Path) -> None:
    (sd15_folder / UNET).unlink()
    (sd15_folder / UNET).symlink_to(tmp_path / "absent")
    assert_refused(sd15_folder, f"{UNET} is outside the folder")


def test_a_link_to_itself_is_refused(sd15_folder: Path) -> None:
    (sd15_folder / UNET).unlink()
    (sd15_folder / UNET).symlink_to(sd15_folder / UNET)
    assert_refused(sd15_folder, f"{UNET} cannot be read")


def test_a_tokenizer_that_would_fill_the_memory_is_refused(sd15_folder: Path) -> None:
    with (sd15_folder / "tokenizer/added_tokens.json").open("wb") as file:
        file.truncate(33 << 20)
    assert_refused(sd15_folder, "tokenizer is too large")
