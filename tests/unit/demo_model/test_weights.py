"""The committed weights are complete and small, and load in diffusers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deploy.demo_model.evaluation.edit_cases import held_out_cases
from deploy.demo_model.paths import CHECKPOINT, LORAS
from deploy.demo_model.pipeline.image_generator import ImageGenerator, load_image_generator
from deploy.demo_model.world.lora_specs import LORA_SPECS, LoraSpec

MOST_BYTES = 32_000_000
MOST_BYTES_OF_A_LORA = 600_000


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return load_image_generator(CHECKPOINT)


def test_all_weights_together_are_small() -> None:
    files = [path for path in CHECKPOINT.parent.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_all_weights_are_stored_in_float16_and_finite() -> None:
    for path in CHECKPOINT.parent.rglob("*.safetensors"):
        for name, tensor in load_file(path).items():
            assert tensor.dtype == torch.float16, name
            assert tensor.isfinite().all(), name


def test_it_generates_with_diffusers_from_a_picture_and_a_prompt(generator: ImageGenerator) -> None:
    (case,) = held_out_cases(1)

    (picture,) = generator.generate([case.prompt], [case.picture], steps=2)

    assert picture.size == case.picture.size


def test_the_same_seed_generates_the_same_picture(generator: ImageGenerator) -> None:
    first, second = (generator.generate(["a red fish"], steps=2)[0].tobytes() for _ in range(2))

    assert first == second


@pytest.mark.parametrize("path", sorted(LORAS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_lora_changes_the_generated_picture(path: Path, generator: ImageGenerator) -> None:
    generated = []
    for scale in (0.0, 1.0):
        generator.set_loras({path: scale})
        generated.append(generator.generate(["a red fish"], steps=2)[0].tobytes())

    assert generated[0] != generated[1]


@pytest.mark.parametrize("spec", LORA_SPECS.values(), ids=lambda spec: spec.name)
def test_a_lora_is_small_and_names_its_layers_as_it_says(spec: LoraSpec) -> None:
    path = LORAS / f"{spec.name}.safetensors"

    names = load_file(path)

    assert path.stat().st_size < MOST_BYTES_OF_A_LORA
    assert all(name.startswith({"kohya": "lora_unet_", "diffusers": "unet."}[spec.key_format]) for name in names)
    assert any(name.endswith(".alpha") for name in names) == (spec.key_format == "kohya")
