"""LoRA files that were made for another model, or are no LoRA: a refusal says for which."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component, WeightFile
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from tests.unit.runtime import lora_files
from tests.unit.runtime.lora_files import (
    CROSS,
    assert_refused,
    linear,
    pair,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.safetensors"


@pytest.mark.parametrize("style", ["peft", "kohya"])
@pytest.mark.parametrize(("lora", "model"), [("sd15", "sdxl"), ("sdxl", "sd15")])
def test_a_lora_of_another_architecture_is_refused(
    tiny: Path, request: pytest.FixtureRequest, style: str, lora: str, model: str
) -> None:
    assert_refused(
        tiny / f"loras/{lora}/{style}.safetensors", request.getfixturevalue(model), r"name no layer|do not fit"
    )


def _genuine(path: Path, width: int) -> Component:
    """A UNet's cross-attention of a genuine width, alone."""
    save_file({f"{CROSS}.to_k.weight": torch.zeros(4, width), f"{CROSS}.to_v.weight": torch.zeros(4, width)}, path)
    return Component(role="unet", config={}, files=(WeightFile(path=path, digest=""),))


@pytest.mark.parametrize(
    ("lora", "model", "reason"),
    [
        (2048, 768, r"made for SDXL \(text width 2048\), but the checkpoint is SD 1\.x \(text width 768\); "),
        (1024, 768, r"made for SD 2\.x \(text width 1024\), but the checkpoint is SD 1\.x \(text width 768\); "),
        (768, 2048, r"made for SD 1\.x \(text width 768\), but the checkpoint is SDXL \(text width 2048\); "),
    ],
)
@pytest.mark.parametrize("style", ["unet", "lora_unet"])
def test_the_model_that_a_lora_was_made_for_is_named(
    path: Path, tmp_path: Path, lora: int, model: int, reason: str, style: str
) -> None:
    stem = f"unet.{CROSS}.to_k" if style == "unet" else f"lora_unet_{CROSS.replace('.', '_')}_to_k"
    lora_files.write(path, pair(stem, 4, lora))
    shapes = rf".*fit \(1\): unet\.{CROSS}\.to_k\.weight: expected shape \[4, {model}\], found \[4, {lora}\]$"
    with pytest.raises(LoraError, match=f"^this LoRA was {reason}{shapes}"):
        read_lora(path, [_genuine(tmp_path / "unet.safetensors", model)])


def test_a_lora_of_two_text_encoders_is_recognized_by_the_second(path: Path, sd15: Checkpoint) -> None:
    tensors = pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", 64, 32)
    assert_refused(
        lora_files.write(path, tensors),
        sd15,
        "made for two text encoders, as in SDXL, but the checkpoint has one;.*2 of 2",
    )


def test_a_file_whose_keys_name_no_layer_is_refused_and_the_keys_are_listed(path: Path, sd15: Checkpoint) -> None:
    unknown = {f"unet.nowhere.{n}.lora_A.weight": torch.zeros(2, 2) for n in range(10)}
    assert_refused(
        lora_files.write(path, unknown | {"vae.x.lora_A.weight": torch.zeros(2, 2)}),
        sd15,
        r"Keys for other components \(1 of 11\): vae\.x\.lora_A\.weight; "
        r"Keys that name no layer \(10 of 11\): unet\.nowhere\.0\.lora_A\.weight, .*unet\.nowhere\.3.* and 6 more$",
    )


@pytest.mark.parametrize(
    ("stem", "made_for"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_proj", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_k_proj", "Stable Diffusion 3"),
    ],
)
def test_a_lora_of_a_transformer_is_refused_by_its_name(path: Path, sd15: Checkpoint, stem: str, made_for: str) -> None:
    assert_refused(lora_files.write(path, pair(stem, 8, 8)), sd15, rf"made for {made_for}; .*\(2 of 2\)")


@pytest.mark.parametrize(
    ("stem", "made_for"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", "Flux"),
        ("unet.down_blocks.0.motion_modules.0.temporal_transformer.proj_in", "AnimateDiff"),
        ("lora_prior_unet_down_blocks_0_0_attention", "Stable Cascade"),
        ("lycoris_transformer_blocks_0_img_mlp_net_0_proj", "Qwen-Image"),
        ("diffusion_model.blocks.0.cross_attn.k", "Wan"),
        ("diffusion_model.layers.0.attention.to_q", "Z-Image"),
    ],
)
def test_a_lora_of_another_network_is_refused_though_some_keys_match(
    path: Path, sd15: Checkpoint, stem: str, made_for: str
) -> None:
    tensors = linear() | pair("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 32, 32) | pair(stem, 8, 8)
    assert_refused(lora_files.write(path, tensors), sd15, rf"^this LoRA was made for {made_for}; .* \(2 of 6\): ")


def test_a_bundled_embedding_is_no_sign_of_another_network(path: Path, sd15: Checkpoint) -> None:
    tensors = linear() | {"bundle_emb.double_blocks.clip_l": torch.zeros(2, 32)}
    assert len(read_lora(lora_files.write(path, tensors), sd15.adaptable).layers) == 1


def test_a_lora_of_another_text_width_is_refused_though_some_keys_match(path: Path, sd15: Checkpoint) -> None:
    unknown = pair(f"unet.{CROSS.replace('transformer_blocks.0.', 'transformer_blocks.7.')}.to_k", 32, 48)
    assert_refused(lora_files.write(path, linear() | unknown), sd15, r"made for another model \(text width 48\)")


@pytest.mark.parametrize("prefix", ["lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer.", "clip_g."])
@pytest.mark.parametrize("matching", [1, 2])
def test_a_lora_of_two_text_encoders_is_refused_unless_most_keys_match(
    path: Path, sd15: Checkpoint, prefix: str, matching: int
) -> None:
    tensors = pair(f"{prefix}text_model.encoder.layers.0.self_attn.q_proj", 48, 48)
    for name in ("q_proj", "k_proj")[:matching]:
        tensors |= pair(f"lora_te1_text_model_encoder_layers_0_self_attn_{name}", 32, 32)
    lora_files.write(path, tensors)
    if matching == 1:
        assert_refused(path, sd15, r"made for two text encoders, .* Keys for other components \(2 of 4\)")
    else:
        assert len(read_lora(path, sd15.adaptable).layers) == 2


@pytest.mark.parametrize("file", ["sd15/unet/diffusion_pytorch_model", "single/sd15"])
def test_whole_weights_are_no_lora(tiny: Path, sd15: Checkpoint, file: str) -> None:
    reason = "this file has whole weights, not a LoRA; give a checkpoint in model_name"
    assert_refused(tiny / f"{file}.safetensors", sd15, reason)


@pytest.mark.parametrize("keys", [("emb_params",), ("emp_params",), ("clip_l", "clip_g")])
def test_an_embedding_is_no_lora(path: Path, sd15: Checkpoint, keys: tuple[str, ...]) -> None:
    lora_files.write(path, {key: torch.zeros(2, 32) for key in keys})
    assert_refused(path, sd15, "this file is a textual inversion embedding, not a LoRA")


@pytest.mark.parametrize(
    ("suffixes", "what"),
    [
        ((".oft_blocks", ".alpha"), "OFT or BOFT"),
        ((".oft_R.weight",), "OFT or BOFT"),
        ((".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight", ".alpha"), "GLoRA"),
        ((".q_layer.weight", ".p_layer.weight", ".lambda_layer", ".alpha"), "T-LoRA"),
        ((".weight", ".on_input"), r"\(IA\)³"),
        ((".___.layer.W_down", ".___.layer.W_up", ".___.alpha"), "the format of HCP-Diffusion"),
        ((".___.layer.lora_down.weight", ".___.layer.lora_up.weight"), "the format of HCP-Diffusion"),
    ],
)
@pytest.mark.parametrize("prefix", [f"{CROSS}.to_k", f"lora_unet_{CROSS.replace('.', '_')}_to_k"])
def test_a_file_of_an_unsupported_kind_is_refused_by_its_kind(
    path: Path, sd15: Checkpoint, prefix: str, suffixes: tuple[str, ...], what: str
) -> None:
    lora_files.write(path, {f"{prefix}{suffix}": torch.zeros(2, 2) for suffix in suffixes})
    assert_refused(path, sd15, f"^this file is .*{what}, which is not supported; .*{len(suffixes)} of {len(suffixes)}")
