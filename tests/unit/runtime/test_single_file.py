"""Single-file checkpoints: the same networks, with the same weights, as the folders that they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.weights.weight_set import WeightSet
from tests.tiny.original import write_prefixed, write_sidecar
from tests.unit.runtime.engines import make_engine, run, unet_inputs
from tests.unit.runtime.single_files import FILES, change_tensors, read_single
from tests.unit.runtime.tiny_checkpoints import base_tensors
from tests.unit.runtime.tiny_checkpoints import read_checkpoint as read_tiny

PIPELINES = {"sd15": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_every_architecture_is_that_of_the_folder(tiny: Path, name: str, source: str) -> None:
    """The configurations spell out different parts of it; one engine serves both."""
    one, other = read_single(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    kinds: dict[str, tuple[NetworkKind, ...]] = {"unet": ("unet",), "vae": ("vae_encoder", "vae_decoder")}
    for mine, theirs in zip(one.components, other.components, strict=True):
        for kind in kinds.get(mine.role, ("text_encoder",)):
            assert architecture_of(kind, mine.config) == architecture_of(kind, theirs.config)


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_every_parameter_is_that_of_the_folder(tiny: Path, name: str, source: str) -> None:
    one, other = read_single(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    assert one.kind == other.kind
    assert [part.role for part in one.components] == [part.role for part in other.components]
    for mine, theirs in zip(one.components, other.components, strict=True):
        assert mine.shapes == theirs.shapes
        found, expected = base_tensors(mine), base_tensors(theirs)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert {key: tuple(tensor.shape) for key, tensor in found.items()} == mine.shapes


@pytest.mark.parametrize(("name", "pipeline"), PIPELINES.items())
def test_every_parameter_is_that_of_diffusers(tiny: Path, name: str, pipeline: Any) -> None:
    path = tiny / "single" / f"{name}.safetensors"
    pipe = pipeline.from_single_file(str(path), config=str(tiny / name), local_files_only=True)
    for component in read_single(path, tiny).components:
        # transformers 5 has dropped the level `text_model` in one of its two classes.
        theirs, mine = getattr(pipe, component.name).state_dict(), base_tensors(component)
        expected = {key.removeprefix("text_model."): tensor for key, tensor in theirs.items()}
        found = {key.removeprefix("text_model."): tensor for key, tensor in mine.items()}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_every_network_answers_as_the_folders(tiny: Path, name: str, source: str) -> None:
    """What shapes do not tell (heads, norms, activations) is right too."""
    one, other = read_single(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    width = next(shape[1] for key, shape in other.unet.shapes.items() if key.endswith("attn2.to_k.weight"))
    inputs = unet_inputs(other.kind) | {"text": torch.randn(2, 77, width)}
    ids = torch.randint(300, (1, 77), generator=torch.Generator().manual_seed(0))
    runs: list[tuple[Any, Component, Component, dict[str, Any]]] = [
        ("unet", one.unet, other.unet, inputs),
        ("vae_encoder", one.vae, other.vae, {"pixels": torch.randn(1, 3, 64, 64)}),
        ("vae_decoder", one.vae, other.vae, {"latents": torch.randn(1, 4, 8, 8)}),
        *(("text_encoder", a, b, {"ids": ids}) for a, b in zip(one.text_encoders, other.text_encoders, strict=True)),
    ]
    for kind, mine, theirs, given in runs:
        answers = [run(make_engine(kind, part)[0], WeightSet(part), given) for part in (mine, theirs)]
        assert answers[0].keys() == answers[1].keys()
        torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_all_else_is_that_of_the_folder(tiny: Path, name: str, source: str) -> None:
    one, other = read_single(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    assert (one.native_size, one.scaling_factor) == (other.native_size, other.scaling_factor)
    assert one.tokenizers == other.tokenizers
    assert {key: one.scheduler[key] for key in other.scheduler} == other.scheduler


def test_a_file_is_the_same_after_its_journey_as_json(tiny: Path) -> None:
    checkpoint = read_single(tiny / "single/sdxl.safetensors", tiny)
    again = Checkpoint.model_validate_json(checkpoint.model_dump_json(exclude_unset=True))
    assert again == checkpoint
    assert [part.digest for part in again.components] == [part.digest for part in checkpoint.components]


def test_two_components_of_a_file_are_two(tiny: Path) -> None:
    parts = read_single(tiny / "single/sdxl.safetensors", tiny).components
    assert len({part.digest for part in parts}) == len(parts)


def test_half_precision_is_read_as_well(tiny_copy: Path, tiny: Path) -> None:
    path = tiny_copy / "single/sd2.safetensors"
    change_tensors(path, lambda all_: {key: t.bfloat16() if t.is_floating_point() else t for key, t in all_.items()})
    expected = base_tensors(read_tiny(tiny / "sd2").unet)
    found = base_tensors(read_single(path, tiny_copy).unet)
    assert all(torch.equal(found[key], expected[key].bfloat16()) for key in expected)


@pytest.mark.parametrize("root", ["cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."])
def test_old_merges_name_clip_without_its_level(tiny_copy: Path, tiny: Path, root: str) -> None:
    path = tiny_copy / "single/sd15.safetensors"
    change_tensors(
        path, lambda all_: {k.replace("cond_stage_model.transformer.text_model.", root): t for k, t in all_.items()}
    )
    assert read_single(path, tiny_copy).text_encoders[0].shapes == read_tiny(tiny / "sd15").text_encoders[0].shapes


def test_the_rest_of_clip_is_ignored(tiny_copy: Path, tiny: Path) -> None:
    rest = ("text_projection.weight", "vision_model.post_layernorm.bias", "visual_projection.weight", "logit_scale")
    others = {f"cond_stage_model.transformer.{name}": torch.zeros(2) for name in rest}
    path = change_tensors(tiny_copy / "single/sd15.safetensors", lambda all_: all_ | others)
    assert read_single(path, tiny_copy).text_encoders[0].shapes == read_tiny(tiny / "sd15").text_encoders[0].shapes


def test_sdxl_under_the_names_of_diffusers(tiny_copy: Path) -> None:
    path, source = tiny_copy / "single/prefixed.safetensors", tiny_copy / "sdxl"
    write_prefixed(path, source, ("unet", "vae", "text_encoder", "text_encoder_2"))
    write_sidecar(path, source, ("tokenizer", "tokenizer_2"))
    expected = read_single(tiny_copy / "single/sdxl.safetensors", tiny_copy)
    found = read_single(path, tiny_copy)
    assert [part.shapes for part in found.components] == [part.shapes for part in expected.components]
    assert [part.config for part in found.components] == [part.config for part in expected.components]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sd15", "first_stage_model.loss.logvar"),
        ("sd15", "first_stage_model.model_ema.decay"),
        ("sd2", "cond_stage_model.model.transformer.text_model.embeddings.position_ids"),
        ("sdxl", "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids"),
    ],
)
def test_what_training_and_merging_left_is_ignored(tiny_copy: Path, name: str, key: str) -> None:
    before = read_single(tiny_copy / f"single/{name}.safetensors", tiny_copy)
    path = change_tensors(
        tiny_copy / f"single/{name}.safetensors", lambda all_: all_ | {key: torch.zeros(1, dtype=torch.int64)}
    )
    found = read_single(path, tiny_copy)
    assert [part.shapes for part in found.components] == [part.shapes for part in before.components]
