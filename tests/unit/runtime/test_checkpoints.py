"""Checkpoints: what a folder holds is told from its weights; what is missing, damaged or hostile is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.numpy import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError, VariantError
from runtime.checkpoints.folder import read_folder
from runtime.files.located import Folder
from runtime.files.store import StoredFile
from tests.unit.runtime.tiny_checkpoints import digest, read_checkpoint

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
WEIGHTS = (UNET, VAE, TEXT)
CONFIGS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")


def _copy(source: Path, target: Path) -> Path:
    """The same checkpoint, its files linked: to change one, write another in its place."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """An SD 1.5 checkpoint to spoil."""
    return _copy(tiny / "sd15", tmp_path / "checkpoint")


def _write(path: Path, content: bytes | str | dict[str, Any]) -> None:
    path.unlink(missing_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _change_json(path: Path, **values: Any) -> None:
    _write(path, json.loads(path.read_text()) | values)


def _change_weights(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)


def _refused(folder: Path, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(folder)


def test_sd15_is_told_from_its_weights(sd15: Checkpoint) -> None:
    assert sd15.kind == "sd"
    assert [component.name for component in sd15.components] == ["vae", "unet", "text_encoder"]
    assert (sd15.native_size, sd15.vae_scale_factor, sd15.scaling_factor) == (128, 8, 0.18215)


def test_sdxl_is_told_from_its_weights(sdxl: Checkpoint) -> None:
    assert sdxl.kind == "sdxl"
    assert [component.name for component in sdxl.adaptable] == ["unet", "text_encoder", "text_encoder_2"]
    assert (sdxl.native_size, sdxl.scaling_factor) == (192, 0.13025)


def test_no_folder_name_and_no_index_says_what_it_is(tiny: Path, tmp_path: Path) -> None:
    folder = _copy(tiny / "sdxl", tmp_path / "stable-diffusion-v1-5")
    _change_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    assert read_checkpoint(folder).kind == "sdxl"


def test_every_file_is_named_by_its_digest(sd15: Checkpoint, tiny: Path) -> None:
    found = {file.path: file.digest for component in sd15.components for file in component.files}
    assert found == {path: digest(path).digest for path in ((tiny / "sd15" / name).resolve() for name in WEIGHTS)}


def test_the_published_sd15_does_not_say_its_scaling_factor(folder: Path) -> None:
    config = json.loads((folder / "vae/config.json").read_text())
    _write(folder / "vae/config.json", {name: value for name, value in config.items() if name != "scaling_factor"})
    assert read_checkpoint(folder).scaling_factor == AutoencoderKL().config.scaling_factor


def test_shards_make_one_component(folder: Path, sd15: Checkpoint) -> None:
    tensors = load_file(folder / UNET)
    (folder / UNET).unlink()
    halves = [dict(list(tensors.items())[half::2]) for half in range(2)]
    for half, part in enumerate(halves):
        save_file(part, folder / "unet" / f"part-{half}.safetensors")
    index = {"weight_map": {name: f"part-{half}.safetensors" for half, part in enumerate(halves) for name in part}}
    _write(folder / f"{UNET}.index.json", index)
    unet = read_checkpoint(folder).unet
    assert [file.path.name for file in unet.files] == ["part-0.safetensors", "part-1.safetensors"]
    assert unet.shapes == sd15.unet.shapes


def test_shapes_are_under_the_names_of_diffusers(tiny: Path, sd15: Checkpoint) -> None:
    expected = {
        name: tuple(tensor.shape) for name, tensor in AutoencoderKL.from_config(sd15.vae.config).state_dict().items()
    }
    assert sd15.vae.shapes == expected
    assert read_checkpoint(tiny / "sd15-oldnames").vae.shapes.keys() == expected.keys()


def test_both_styles_of_clip_names_are_one(folder: Path, sd15: Checkpoint) -> None:
    _change_weights(
        folder / TEXT,
        lambda tensors: (
            {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
            | {"embeddings.position_ids": np.arange(77)[None]}
        ),
    )
    assert read_checkpoint(folder).text_encoders[0].shapes == sd15.text_encoders[0].shapes


@pytest.mark.parametrize("name", [*WEIGHTS, *CONFIGS, "tokenizer/vocab.json", "tokenizer/merges.txt"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    _refused(folder, f"{name}.* is missing")


@pytest.mark.parametrize("name", [*WEIGHTS, *CONFIGS])
def test_a_folder_in_the_place_of_a_file_is_no_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    _refused(folder, f"{name}.* is missing")


def test_sdxl_needs_its_second_text_encoder(tiny: Path, tmp_path: Path) -> None:
    folder = _copy(tiny / "sdxl", tmp_path / "checkpoint")
    shutil.rmtree(folder / "text_encoder_2")
    _refused(folder, "its file text_encoder_2/config.json is missing")


def test_a_refiner_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = _copy(tiny / "sdxl", tmp_path / "checkpoint")
    shutil.rmtree(folder / "text_encoder")
    _refused(folder, "refiner")


def test_an_inpainting_unet_is_refused(folder: Path) -> None:
    _change_weights(folder / UNET, lambda all_: all_ | {"conv_in.weight": np.zeros((16, 9, 3, 3), np.float32)})
    _refused(folder, "the UNet has 9 input channels")


def test_an_lcm_unet_that_lies_about_its_guidance_is_refused(folder: Path) -> None:
    _change_json(folder / "unet/config.json", time_cond_proj_dim=2)
    _refused(folder, "time_cond_proj_dim")


def test_sd2_is_told_from_its_weights(tiny: Path) -> None:
    sd2 = read_checkpoint(tiny / "sd2")
    assert (sd2.kind, sd2.native_size, sd2.scheduler["prediction_type"]) == ("sd", 192, "v_prediction")


def _as_variant(path: Path) -> None:
    path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


def test_a_variant_is_preferred_where_there_is_one(folder: Path) -> None:
    _as_variant(folder / UNET)
    found = read_folder(Folder(folder, folder), digest, "fp16")
    assert found.unet.files[0].path.name == "diffusion_pytorch_model.fp16.safetensors"
    assert found.vae.files[0].path.name == "diffusion_pytorch_model.safetensors"
    _refused(folder, f"its file {UNET} is missing")


def test_a_variant_may_have_shards(folder: Path) -> None:
    _as_variant(folder / UNET)
    (folder / "unet/diffusion_pytorch_model.fp16.safetensors").rename(folder / "unet/part.fp16-00001.safetensors")
    index = {"weight_map": {"conv_in.weight": "part.fp16-00001.safetensors"}}
    _write(folder / "unet/diffusion_pytorch_model.safetensors.index.fp16.json", index)
    assert read_folder(Folder(folder, folder), digest, "fp16").unet.files[0].path.name == "part.fp16-00001.safetensors"


def test_a_variant_that_no_component_has_is_refused(folder: Path) -> None:
    with pytest.raises(VariantError, match="'fp16'"):
        read_folder(Folder(folder, folder), digest, "fp16")


def _only(folder: Path, suffix: str, *parts: str) -> None:
    """Renames the weight files of components, or of all of them."""
    for path in list(folder.rglob("*.safetensors")):
        if not parts or path.parent.name in parts:
            path.rename(path.with_name(path.name.replace(".safetensors", suffix)))


@pytest.mark.parametrize(
    ("suffix", "parts", "reason"),
    [
        (".fp16.safetensors", (), f"its file {UNET} is missing: set variant to 'fp16', which the folder has"),
        (".fp16.safetensors", ("vae",), f"its file {VAE} is missing: set variant to 'fp16', which the folder has"),
        (".fp16-00001-of-00001.safetensors", ("unet",), f"its file {UNET} is missing: set variant to 'fp16'"),
        ("-00001-of-00002.bf16.safetensors", ("unet",), f"its file {UNET} is missing: set variant to 'bf16'"),
        (".safetensors.index.fp16.json", ("text_encoder",), f"its file {TEXT} is missing: set variant to 'fp16'"),
        (
            ".bin",
            (),
            f"its file {UNET} is missing: the folder has diffusion_pytorch_model.bin, pickles, .* convert them",
        ),
        (".fp16.bin", ("text_encoder",), f"its file {TEXT} is missing: the folder has model.fp16.bin, pickles, "),
        (".ckpt", ("vae",), f"its file {VAE} is missing: the folder has diffusion_pytorch_model.ckpt, pickles, "),
        ("_ema.safetensors", ("vae",), f"its file {VAE} is missing: the folder has .*; expected this file, or shards"),
        (".onnx", ("vae",), f"its file {VAE} is missing: expected it, or a variant"),
    ],
)
def test_a_missing_weight_file_says_what_to_do(folder: Path, suffix: str, parts: tuple[str, ...], reason: str) -> None:
    _only(folder, suffix, *parts)
    _refused(folder, reason)


def test_the_named_variant_is_then_read(folder: Path, sd15: Checkpoint) -> None:
    _only(folder, ".fp16.safetensors")
    assert read_folder(Folder(folder, folder), digest, "fp16").unet.shapes == sd15.unet.shapes


def test_two_variants_are_both_named(folder: Path) -> None:
    (folder / UNET).rename(folder / UNET.replace(".safetensors", ".fp16.safetensors"))
    _write(folder / UNET.replace(".safetensors", ".non_ema.safetensors"), b"")
    _refused(folder, "set variant to 'fp16' or 'non_ema'")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "its file unet/config.json is missing: expected a folder in the format of diffusers"),
        (("a.ckpt",), "its file unet/config.json is missing: the folder has a.ckpt, pickles, .* convert them"),
        (("pytorch_model.bin",), "its file unet/config.json is missing: the folder has pytorch_model.bin, pickles"),
        (("a.safetensors", "a.ckpt"), "a checkpoint in one file is named by its file, as a.safetensors"),
    ],
)
def test_a_folder_without_components_says_what_to_do(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    _refused(tmp_path, reason)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 3438167540\n"


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("content", [POINTER, b"<!DOCTYPE html><html></html>", b'{"error": "unauthorized"}'])
def test_a_weight_file_that_holds_no_weights_is_named(folder: Path, name: str, content: bytes) -> None:
    _write(folder / name, content)
    _refused(folder, rf"^{name}: not a readable \.safetensors file")


def test_a_damaged_file_is_not_hashed(folder: Path) -> None:
    hashed: list[str] = []

    def hash_file(path: Path) -> StoredFile:
        hashed.append(path.name)
        return digest(path)

    _write(folder / UNET, (folder / UNET).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"^{UNET}: not a readable"):
        read_folder(Folder(folder, folder), hash_file)
    assert hashed == []


@pytest.mark.parametrize("damage", ["cut", "pointer", "missing"])
def test_a_damaged_shard_is_named(folder: Path, damage: str) -> None:
    tensors = load_file(folder / UNET)
    (folder / UNET).unlink()
    shards = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, shard in enumerate(shards):
        save_file(dict(list(tensors.items())[number::2]), folder / "unet" / shard)
    index = {"weight_map": {name: shards[number % 2] for number, name in enumerate(tensors)}}
    _write(folder / f"{UNET}.index.json", index)
    assert len(read_checkpoint(folder).unet.files) == 2
    path = folder / "unet" / shards[1]
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-1] if damage == "cut" else POINTER)
    where = f"unet/{shards[1]}"
    _refused(folder, f"^its file {where} is missing" if damage == "missing" else f"^{where}: not a readable")


@pytest.mark.parametrize("values", [{"latents_mean": [-1.6, 1.8, -1.3, 2.5]}, {"latents_std": [8.4, 5.9, 6.5, 5.2]}])
def test_a_vae_that_normalizes_its_latents_is_refused(folder: Path, values: dict[str, Any]) -> None:
    _change_json(folder / "vae/config.json", **values)
    _refused(folder, f"its vae normalizes its latents .{next(iter(values))} in its configuration")
    _change_json(folder / "vae/config.json", **dict.fromkeys(values))
    read_checkpoint(folder)


@pytest.mark.parametrize(
    ("index", "config", "expected"),
    [
        ("EulerDiscreteScheduler", "PNDMScheduler", "EulerDiscreteScheduler"),
        ("DDIMScheduler", "EulerDiscreteScheduler", "DDIMScheduler"),
        ("DPMSolverMultistepScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"),
        ("DDIMScheduler", "UniPCMultistepScheduler", "DDIMScheduler"),
        ("PNDMScheduler", "PNDMScheduler", "PNDMScheduler"),
    ],
)
def test_the_index_names_the_schedulers_class(folder: Path, index: str, config: str, expected: str) -> None:
    """And the configuration its options: so diffusers reads the folder."""
    _change_json(folder / "model_index.json", scheduler=["diffusers", index])
    _change_json(folder / "scheduler/scheduler_config.json", _class_name=config, beta_end=0.013)
    found = read_checkpoint(folder).scheduler
    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    assert found["_class_name"] == expected == type(pipe.scheduler).__name__
    assert found["beta_end"] == pipe.scheduler.config.beta_end == 0.013


@pytest.mark.parametrize(
    "entry", [None, [], [None, None], ["diffusers"], ["evil", "EvilScheduler"], "DDIMScheduler", 5]
)
def test_an_index_that_names_no_class_of_diffusers_changes_nothing(folder: Path, entry: Any) -> None:
    _change_json(folder / "model_index.json", scheduler=entry)
    assert read_checkpoint(folder).scheduler["_class_name"] == "PNDMScheduler"


def test_a_folder_may_lack_its_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    assert read_checkpoint(folder).scheduler["_class_name"] == "PNDMScheduler"


def test_an_index_does_not_hide_a_scheduler_for_other_models(folder: Path) -> None:
    _change_json(folder / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"])
    _write(folder / "scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert read_checkpoint(folder).scheduler["_class_name"] == "FlowMatchEulerDiscreteScheduler"


def test_text_encoders_of_another_width_are_refused(tiny: Path, folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    _copy(tiny / "sdxl" / "text_encoder_2", folder / "text_encoder")
    _change_json(folder / "text_encoder/config.json", architectures=["CLIPTextModel"])
    _refused(folder, r"sum 32 \(its cross_attention_dim\), found \[48\]")


def test_a_vae_of_another_family_is_refused(folder: Path) -> None:
    sixteen = {"decoder.conv_in.weight": np.zeros((32, 16, 3, 3), np.float32)}
    _change_weights(folder / VAE, lambda tensors: tensors | sixteen)
    _refused(folder, "VAE")


@pytest.mark.parametrize(
    ("name", "kind"), [("unet", "Transformer2DModel"), ("vae", "AutoencoderTiny"), ("text_encoder", "T5EncoderModel")]
)
def test_another_kind_of_network_is_refused(folder: Path, name: str, kind: str) -> None:
    _change_json(folder / name / "config.json", _class_name=kind, architectures=[kind])
    _refused(folder, f"{name}/config.json names another class")


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("dtype", ["int8", "int64", "bool"])
def test_quantized_weights_are_refused(folder: Path, name: str, dtype: str) -> None:
    _change_weights(folder / name, lambda all_: {key: tensor.astype(dtype) for key, tensor in all_.items()})
    _refused(folder, "has dtype (I8|I64|BOOL)")


def _header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff" * 100,
        _header("{}")[:9],
        _header('{"a": '),
        _header('{"a": {"dtype": "F32", "shape": [1000000], "data_offsets": [0, 4000000]}}'),
        _header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}') + b"\0" * 16,
        _header('{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}') + b"\0" * 16,
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_a_damaged_weight_file_is_refused(folder: Path, name: str, content: bytes) -> None:
    _write(folder / name, content)
    _refused(folder, r"not a readable \.safetensors file")


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_truncated_weight_file_is_refused(folder: Path, name: str) -> None:
    _write(folder / name, (folder / name).read_bytes()[:-1])
    _refused(folder, r"not a readable \.safetensors file")


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
def test_hostile_json_is_refused(folder: Path, name: str, content: str | bytes, reason: str) -> None:
    _write(folder / name, content)
    _refused(folder, f"{name} {reason}")


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
def test_a_hostile_configuration_is_refused(folder: Path, name: str, values: dict[str, Any]) -> None:
    _change_json(folder / name / "config.json", **values)
    _refused(folder, f"the configuration of its {name} is invalid: {next(iter(values))}")


def test_a_class_that_is_no_text_is_refused(folder: Path) -> None:
    _change_json(folder / "unet/config.json", architectures=5, _class_name={})
    _refused(folder, "unet/config.json names another class")


@pytest.mark.parametrize("values", [{"addition_time_embed_dim": 9}, {"addition_time_embed_dim": None}])
def test_sizes_that_the_unet_cannot_take_are_refused(tiny: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    folder = _copy(tiny / "sdxl", tmp_path / "checkpoint")
    _change_json(folder / "unet/config.json", **values)
    _refused(folder, "the UNet's add_embedding has an input of ")


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
def test_a_hostile_index_is_refused(folder: Path, index: dict[str, Any]) -> None:
    (folder.parent / "secret.safetensors").write_bytes(b"secret")
    _write(folder / f"{UNET}.index.json", index)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [*WEIGHTS, *CONFIGS, "tokenizer/vocab.json", "tokenizer/added_tokens.json"])
def test_a_link_that_leads_out_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    _refused(folder, f"{name} is outside the folder")


def test_a_link_that_leads_nowhere_out_says_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / UNET).unlink()
    (folder / UNET).symlink_to(tmp_path / "absent")
    _refused(folder, f"{UNET} is outside the folder")


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / UNET).symlink_to(folder / UNET)
    _refused(folder, f"{UNET} cannot be read")


def test_links_within_the_hubs_cache_are_followed(tiny: Path, tmp_path: Path) -> None:
    """A snapshot of the Hub's cache is made of links to its blobs."""
    blobs, snapshot = _copy(tiny / "sd15", tmp_path / "hub/blobs"), tmp_path / "hub/snapshot"
    for path in (path for path in blobs.rglob("*") if path.is_file()):
        link = snapshot / path.relative_to(blobs)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert read_folder(Folder(snapshot, tmp_path / "hub"), digest).kind == "sd"


def test_a_tokenizer_that_would_fill_the_memory_is_refused(folder: Path) -> None:
    with (folder / "tokenizer/added_tokens.json").open("wb") as file:
        file.truncate(33 << 20)
    _refused(folder, "tokenizer is too large")
