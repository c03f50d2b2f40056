"""Single files that are damaged, hostile, or no checkpoint, and hostile sidecars, are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.other_models import other_file
from tests.unit.runtime.layout_files import only_average
from tests.unit.runtime.single_files import FILES, change_sidecar, change_tensors, read_single


def test_a_tensor_that_is_there_twice_under_later_names_is_refused(tiny_copy: Path) -> None:
    """Neither name is the original code's, so neither takes precedence."""
    old, new = (f"first_stage_model.decoder.mid.attn_1.{name}.weight" for name in ("q", "to_q"))
    path = change_tensors(
        tiny_copy / "single/sd15.safetensors",
        lambda all_: (
            {key: tensor for key, tensor in all_.items() if key != old}
            | {new: all_[old], new.replace("to_q", "query"): all_[old].clone()}
        ),
    )
    with pytest.raises(CheckpointError, match=r"to_q\.weight is there twice"):
        read_single(path, tiny_copy)


@pytest.mark.parametrize(
    ("name", "prefix", "reason"),
    [
        ("sd15", "model.diffusion_model.", "it contains no Stable Diffusion UNet"),
        ("sd15", "model.diffusion_model.out.2", r"its unet is incomplete: conv_out\.weight is missing"),
        ("sd15", "first_stage_model.", "its vae is incomplete"),
        ("sd15", "cond_stage_model.", "its text_encoder is missing"),
        ("sdxl", "conditioner.embedders.0.", "its text_encoder is missing"),
        ("sdxl", "conditioner.embedders.1.", "its text_encoder_2 is missing .an SDXL refiner"),
        ("sd15-diffusers", "vae.", "its vae is incomplete"),
    ],
)
def test_what_is_missing_is_named(tiny_copy: Path, name: str, prefix: str, reason: str) -> None:
    path = tiny_copy / f"single/{name}.safetensors"
    change_tensors(path, lambda all_: {key: tensor for key, tensor in all_.items() if not key.startswith(prefix)})
    with pytest.raises(CheckpointError, match=reason):
        read_single(path, tiny_copy)


@pytest.mark.parametrize(
    ("key", "tensor", "reason"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", torch.zeros(16, 9, 3, 3), "has 9 input channels"),
        ("model.diffusion_model.input_blocks.0.0.weight", torch.zeros(()), "has shape"),
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", torch.zeros(0, 4), "has shape"),
        ("model.diffusion_model.out.2.weight", torch.zeros(4, 4, 1, 1, dtype=torch.int8), "has dtype I8"),
        ("first_stage_model.decoder.conv_in.weight", torch.zeros(32, 16, 3, 3), "expected 4 latent channels, found 16"),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", torch.zeros(9), "has shape"),
        ("edm_mean", torch.zeros(4), "trained on the EDM noise schedule"),
        ("edm_vpred.sigma_max", torch.zeros(()), "trained on the EDM noise schedule"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(tiny_copy: Path, key: str, tensor: torch.Tensor, reason: str) -> None:
    path = change_tensors(tiny_copy / "single/sd15.safetensors", lambda all_: all_ | {key: tensor})
    with pytest.raises(CheckpointError, match=reason):
        read_single(path, tiny_copy)


@pytest.mark.parametrize("shape", [(), (7,), (121, 40)])
def test_a_fused_weight_that_has_not_three_parts_is_refused(tiny_copy: Path, shape: tuple[int, ...]) -> None:
    key = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    path = change_tensors(tiny_copy / "single/sd2.safetensors", lambda all_: all_ | {key: torch.zeros(shape)})
    with pytest.raises(CheckpointError, match="does not divide into 3 equal parts"):
        read_single(path, tiny_copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [0, 7, 100, 10_000, -1])
def test_a_truncated_file_is_refused(tiny_copy: Path, name: str, cut: int) -> None:
    path = tiny_copy / f"single/{name}.safetensors"
    content = path.read_bytes()[:cut]
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a readable \.safetensors file"):
        read_single(path, tiny_copy)


def _claims(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode()


def _many(count: int) -> str:
    return json.dumps({str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(count)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(100), "it is a zip archive"),
        (b"\x80\x02}q\x00." + bytes(100), "it is a pickle"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "claims more than"),
        ((33 << 20).to_bytes(8, "little") + b"{}", "claims more than"),
        (_claims('{"a": {"dtype": "F32", "shape": [2684354560], "data_offsets": [0, 10737418240]}}'), "not a readable"),
        (_claims('{"a": {"dtype": "F32", "shape": [99999999999, 99999999999], "data_offsets": [0, 4]}}'), "not a read"),
        (_claims('{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4), "not a readable"),
        (_claims("[]"), "not a readable"),
        (_claims(_many(1 << 17)), "holds more than 16384 tensors"),
        (_claims("{}"), "no Stable Diffusion UNet"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        read_single(path, tmp_path)


def test_without_a_sidecar_a_strange_vocabulary_is_refused(tiny: Path) -> None:
    with pytest.raises(CheckpointError, match=r"text_encoder has \d+ tokens; expected the 49408 of CLIP"):
        read_single(tiny / "single/sd15.safetensors")


def test_a_sidecar_beside_a_downloaded_file_is_not_read(tiny_copy: Path) -> None:
    (tiny_copy / "single/sd15.config.json").unlink()
    (tiny_copy / "single/sd15.config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected the 49408 of CLIP"):
        read_single(tiny_copy / "single/sd15.safetensors", None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tokenizer": "../../secret"}, "is outside the folder"),
        ({"tokenizer": "/etc"}, "is outside the folder"),
        ({"tokenizer": "missing"}, "its file missing/vocab.json is missing"),
        ({"tokenizer": 5}, "tokenizer is an unknown field"),
        ({"unet": 5}, "unet is an unknown field"),
        ({"safety_checker": {}}, "safety_checker is an unknown field"),
        ({"unet": {"norm_num_groups": 10**9}}, "norm_num_groups"),
        ({"vae": {"scaling_factor": -1}}, "scaling_factor"),
        ({"unet": {"sample_size": "large"}}, "sample_size"),
    ],
)
def test_a_hostile_sidecar_is_refused(tiny_copy: Path, values: dict[str, Any], reason: str) -> None:
    path = tiny_copy / "single/sd15.safetensors"
    change_sidecar(path, **values)
    with pytest.raises(CheckpointError, match=reason):
        read_single(path, tiny_copy)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", "a LoRA: give it in loras"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "a LoRA: give it in loras"),
        ("first_stage_model.decoder.conv_in.weight", "a VAE alone"),
        ("text_model.embeddings.token_embedding.weight", "a text encoder alone"),
    ],
)
def test_a_file_of_something_else_is_refused_by_its_name(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match=f"^it contains no Stable Diffusion UNet: it is {what}$"):
        read_single(path)


def test_a_file_with_only_a_moving_average_of_the_unet_is_refused_by_that(tmp_path: Path) -> None:
    path = tmp_path / "ema.safetensors"
    save_file(only_average(), path)
    with pytest.raises(CheckpointError, match=r"^it contains no Stable Diffusion UNet: .* only a moving average of"):
        read_single(path)


def test_a_checkpoint_with_a_moving_average_is_not_one_of_that_alone() -> None:
    names = ["model.diffusion_model.out.2.weight", "model_ema.diffusion_modelout2weight"]
    assert other_file(names) is None


@pytest.mark.parametrize(
    ("name", "root", "reason"),
    [
        ("sd15", "model.diffusion_model.", r"text_encoder is missing \(give a UNet alone as unet_name\)"),
        ("sdxl", "model.diffusion_model.", r"text_encoder is missing \(give a UNet alone as unet_name\)"),
        (
            "sdxl",
            ("model.diffusion_model.", "conditioner.embedders.0."),
            r"text_encoder_2 is missing \(an SDXL refiner is not",
        ),
    ],
)
def test_a_checkpoint_of_some_parts_is_refused(tiny_copy: Path, name: str, root: Any, reason: str) -> None:
    path = change_tensors(
        tiny_copy / f"single/{name}.safetensors",
        lambda all_: {key: tensor for key, tensor in all_.items() if key.startswith(root)},
    )
    with pytest.raises(CheckpointError, match=reason):
        read_single(path, tiny_copy)
