"""Checkpoints: the reader finds what a folder has by its weights, in every form that diffusers writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.numpy import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.folder import read_folder
from runtime.files.located import Folder
from tests.unit.runtime.checkpoint_folders import (
    TEXT,
    UNET,
    WEIGHTS,
    assert_refused,
    change_json,
    change_weights,
    rename_weights,
    write,
)
from tests.unit.runtime.tiny_checkpoints import copy_folder, digest, read_checkpoint


def test_sd15_is_told_from_its_weights(sd15: Checkpoint) -> None:
    assert sd15.kind == "sd"
    assert [component.name for component in sd15.components] == ["vae", "unet", "text_encoder"]
    assert (sd15.native_size, sd15.vae_scale_factor, sd15.scaling_factor) == (128, 8, 0.18215)


def test_sdxl_is_told_from_its_weights(sdxl: Checkpoint) -> None:
    assert sdxl.kind == "sdxl"
    assert [component.name for component in sdxl.adaptable] == ["unet", "text_encoder", "text_encoder_2"]
    assert (sdxl.native_size, sdxl.scaling_factor) == (192, 0.13025)


def test_no_folder_name_and_no_index_says_what_it_is(tiny: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny / "sdxl", tmp_path / "stable-diffusion-v1-5")
    change_json(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    assert read_checkpoint(folder).kind == "sdxl"


def test_every_file_is_named_by_its_digest(sd15: Checkpoint, tiny: Path) -> None:
    found = {file.path: file.digest for component in sd15.components for file in component.files}
    assert found == {path: digest(path).digest for path in ((tiny / "sd15" / name).resolve() for name in WEIGHTS)}


def test_the_published_sd15_does_not_say_its_scaling_factor(sd15_folder: Path) -> None:
    config = json.loads((sd15_folder / "vae/config.json").read_text())
    write(sd15_folder / "vae/config.json", {name: value for name, value in config.items() if name != "scaling_factor"})
    assert read_checkpoint(sd15_folder).scaling_factor == AutoencoderKL().config.scaling_factor


def test_shards_make_one_component(sd15_folder: Path, sd15: Checkpoint) -> None:
    tensors = load_file(sd15_folder / UNET)
    (sd15_folder / UNET).unlink()
    halves = [dict(list(tensors.items())[half::2]) for half in range(2)]
    for half, part in enumerate(halves):
        save_file(part, sd15_folder / "unet" / f"part-{half}.safetensors")
    index = {"weight_map": {name: f"part-{half}.safetensors" for half, part in enumerate(halves) for name in part}}
    write(sd15_folder / f"{UNET}.index.json", index)
    unet = read_checkpoint(sd15_folder).unet
    assert [file.path.name for file in unet.files] == ["part-0.safetensors", "part-1.safetensors"]
    assert unet.shapes == sd15.unet.shapes


def test_shapes_are_under_the_names_of_diffusers(tiny: Path, sd15: Checkpoint) -> None:
    expected = {
        name: tuple(tensor.shape) for name, tensor in AutoencoderKL.from_config(sd15.vae.config).state_dict().items()
    }
    assert sd15.vae.shapes == expected
    assert read_checkpoint(tiny / "sd15-oldnames").vae.shapes.keys() == expected.keys()


def test_both_styles_of_clip_names_are_one(sd15_folder: Path, sd15: Checkpoint) -> None:
    change_weights(
        sd15_folder / TEXT,
        lambda tensors: (
            {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
            | {"embeddings.position_ids": np.arange(77)[None]}
        ),
    )
    assert read_checkpoint(sd15_folder).text_encoders[0].shapes == sd15.text_encoders[0].shapes


def test_sd2_is_told_from_its_weights(tiny: Path) -> None:
    sd2 = read_checkpoint(tiny / "sd2")
    assert (sd2.kind, sd2.native_size, sd2.scheduler["prediction_type"]) == ("sd", 192, "v_prediction")


def _as_variant(path: Path) -> None:
    path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


def test_a_variant_is_preferred_where_there_is_one(sd15_folder: Path) -> None:
    _as_variant(sd15_folder / UNET)
    found = read_folder(Folder(sd15_folder, sd15_folder), digest, "fp16")
    assert found.unet.files[0].path.name == "diffusion_pytorch_model.fp16.safetensors"
    assert found.vae.files[0].path.name == "diffusion_pytorch_model.safetensors"
    assert_refused(sd15_folder, f"its file {UNET} is missing")


def test_a_variant_may_have_shards(sd15_folder: Path) -> None:
    _as_variant(sd15_folder / UNET)
    (sd15_folder / "unet/diffusion_pytorch_model.fp16.safetensors").rename(
        sd15_folder / "unet/part.fp16-00001.safetensors"
    )
    index = {"weight_map": {"conv_in.weight": "part.fp16-00001.safetensors"}}
    write(sd15_folder / "unet/diffusion_pytorch_model.safetensors.index.fp16.json", index)
    assert (
        read_folder(Folder(sd15_folder, sd15_folder), digest, "fp16").unet.files[0].path.name
        == "part.fp16-00001.safetensors"
    )


def test_the_named_variant_is_then_read(sd15_folder: Path, sd15: Checkpoint) -> None:
    rename_weights(sd15_folder, ".fp16.safetensors")
    assert read_folder(Folder(sd15_folder, sd15_folder), digest, "fp16").unet.shapes == sd15.unet.shapes


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
def test_the_index_names_the_schedulers_class(sd15_folder: Path, index: str, config: str, expected: str) -> None:
    """And the configuration its options: so diffusers reads the folder."""
    change_json(sd15_folder / "model_index.json", scheduler=["diffusers", index])
    change_json(sd15_folder / "scheduler/scheduler_config.json", _class_name=config, beta_end=0.013)
    found = read_checkpoint(sd15_folder).scheduler
    pipe = StableDiffusionPipeline.from_pretrained(sd15_folder, local_files_only=True, safety_checker=None)
    assert found["_class_name"] == expected == type(pipe.scheduler).__name__
    assert found["beta_end"] == pipe.scheduler.config.beta_end == 0.013


@pytest.mark.parametrize(
    "entry", [None, [], [None, None], ["diffusers"], ["evil", "EvilScheduler"], "DDIMScheduler", 5]
)
def test_an_index_that_names_no_class_of_diffusers_changes_nothing(sd15_folder: Path, entry: Any) -> None:
    change_json(sd15_folder / "model_index.json", scheduler=entry)
    assert read_checkpoint(sd15_folder).scheduler["_class_name"] == "PNDMScheduler"


def test_a_folder_may_lack_its_index(sd15_folder: Path) -> None:
    (sd15_folder / "model_index.json").unlink()
    assert read_checkpoint(sd15_folder).scheduler["_class_name"] == "PNDMScheduler"


def test_an_index_does_not_hide_a_scheduler_for_other_models(sd15_folder: Path) -> None:
    change_json(sd15_folder / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"])
    write(
        sd15_folder / "scheduler/scheduler_config.json",
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    )
    assert read_checkpoint(sd15_folder).scheduler["_class_name"] == "FlowMatchEulerDiscreteScheduler"


def test_links_within_the_hubs_cache_are_followed(tiny: Path, tmp_path: Path) -> None:
    """A snapshot of the Hub's cache is made of links to its blobs."""
    blobs, snapshot = copy_folder(tiny / "sd15", tmp_path / "hub/blobs"), tmp_path / "hub/snapshot"
    for path in (path for path in blobs.rglob("*") if path.is_file()):
        link = snapshot / path.relative_to(blobs)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert read_folder(Folder(snapshot, tmp_path / "hub"), digest).kind == "sd"
