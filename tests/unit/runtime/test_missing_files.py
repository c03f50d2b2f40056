"""Checkpoints whose weight files are missing or damaged: the message names the file, and says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from runtime.checkpoints.checks import CheckpointError, VariantError
from runtime.checkpoints.folder import read_folder
from runtime.files.located import Folder
from runtime.files.stored_file import StoredFile
from tests.unit.runtime.checkpoint_folders import (
    CONFIGS,
    TEXT,
    UNET,
    VAE,
    WEIGHTS,
    assert_refused,
    rename_weights,
    write,
)
from tests.unit.runtime.tiny_checkpoints import copy_folder, digest, read_checkpoint


@pytest.mark.parametrize("name", [*WEIGHTS, *CONFIGS, "tokenizer/vocab.json", "tokenizer/merges.txt"])
def test_a_missing_file_is_named(sd15_folder: Path, name: str) -> None:
    (sd15_folder / name).unlink()
    assert_refused(sd15_folder, f"{name}.* is missing")


@pytest.mark.parametrize("name", [*WEIGHTS, *CONFIGS])
def test_a_folder_in_the_place_of_a_file_is_no_file(sd15_folder: Path, name: str) -> None:
    (sd15_folder / name).unlink()
    (sd15_folder / name).mkdir()
    assert_refused(sd15_folder, f"{name}.* is missing")


def test_sdxl_needs_its_second_text_encoder(tiny: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny / "sdxl", tmp_path / "checkpoint")
    shutil.rmtree(folder / "text_encoder_2")
    assert_refused(folder, "its file text_encoder_2/config.json is missing")


def test_a_refiner_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny / "sdxl", tmp_path / "checkpoint")
    shutil.rmtree(folder / "text_encoder")
    assert_refused(folder, "refiner")


def test_a_variant_that_no_component_has_is_refused(sd15_folder: Path) -> None:
    with pytest.raises(VariantError, match="'fp16'"):
        read_folder(Folder(sd15_folder, sd15_folder), digest, "fp16")


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
def test_a_missing_weight_file_says_what_to_do(
    sd15_folder: Path, suffix: str, parts: tuple[str, ...], reason: str
) -> None:
    rename_weights(sd15_folder, suffix, *parts)
    assert_refused(sd15_folder, reason)


def test_two_variants_are_both_named(sd15_folder: Path) -> None:
    (sd15_folder / UNET).rename(sd15_folder / UNET.replace(".safetensors", ".fp16.safetensors"))
    write(sd15_folder / UNET.replace(".safetensors", ".non_ema.safetensors"), b"")
    assert_refused(sd15_folder, "set variant to 'fp16' or 'non_ema'")


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
    assert_refused(tmp_path, reason)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 3438167540\n"


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("content", [POINTER, b"<!DOCTYPE html><html></html>", b'{"error": "unauthorized"}'])
def test_a_weight_file_that_holds_no_weights_is_named(sd15_folder: Path, name: str, content: bytes) -> None:
    write(sd15_folder / name, content)
    assert_refused(sd15_folder, rf"^{name}: not a readable \.safetensors file")


def test_a_damaged_file_is_not_hashed(sd15_folder: Path) -> None:
    hashed: list[str] = []

    def hash_file(path: Path) -> StoredFile:
        hashed.append(path.name)
        return digest(path)

    write(sd15_folder / UNET, (sd15_folder / UNET).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"^{UNET}: not a readable"):
        read_folder(Folder(sd15_folder, sd15_folder), hash_file)
    assert hashed == []


@pytest.mark.parametrize("damage", ["cut", "pointer", "missing"])
def test_a_damaged_shard_is_named(sd15_folder: Path, damage: str) -> None:
    tensors = load_file(sd15_folder / UNET)
    (sd15_folder / UNET).unlink()
    shards = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, shard in enumerate(shards):
        save_file(dict(list(tensors.items())[number::2]), sd15_folder / "unet" / shard)
    index = {"weight_map": {name: shards[number % 2] for number, name in enumerate(tensors)}}
    write(sd15_folder / f"{UNET}.index.json", index)
    assert len(read_checkpoint(sd15_folder).unet.files) == 2
    path = sd15_folder / "unet" / shards[1]
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-1] if damage == "cut" else POINTER)
    where = f"unet/{shards[1]}"
    assert_refused(sd15_folder, f"^its file {where} is missing" if damage == "missing" else f"^{where}: not a readable")


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
def test_a_damaged_weight_file_is_refused(sd15_folder: Path, name: str, content: bytes) -> None:
    write(sd15_folder / name, content)
    assert_refused(sd15_folder, r"not a readable \.safetensors file")


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_truncated_weight_file_is_refused(sd15_folder: Path, name: str) -> None:
    write(sd15_folder / name, (sd15_folder / name).read_bytes()[:-1])
    assert_refused(sd15_folder, r"not a readable \.safetensors file")
