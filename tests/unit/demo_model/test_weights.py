"""The committed weights: whole, small, and readable by diffusers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deploy.demo_model.cases import held_out_cases
from deploy.demo_model.lessons import LESSONS, Lesson
from deploy.demo_model.painter import Painter, load_painter
from deploy.demo_model.paths import CHECKPOINT, LORAS

MOST_BYTES = 30_000_000
MOST_BYTES_OF_A_LORA = 600_000


@pytest.fixture(scope="module")
def painter() -> Painter:
    return load_painter(CHECKPOINT)


def test_all_weights_together_are_small() -> None:
    files = [path for path in CHECKPOINT.parent.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_all_weights_are_stored_in_float16_and_finite() -> None:
    for path in CHECKPOINT.parent.rglob("*.safetensors"):
        for name, tensor in load_file(path).items():
            assert tensor.dtype == torch.float16, name
            assert tensor.isfinite().all(), name


def test_it_paints_with_diffusers_from_a_picture_and_a_prompt(painter: Painter) -> None:
    (case,) = held_out_cases(1)

    (picture,) = painter.paint([case.prompt], [case.picture], steps=2)

    assert picture.size == case.picture.size


def test_the_same_seed_paints_the_same(painter: Painter) -> None:
    first, second = (painter.paint(["a red fish"], steps=2)[0].tobytes() for _ in range(2))

    assert first == second


@pytest.mark.parametrize("path", sorted(LORAS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_lora_changes_what_is_painted(path: Path, painter: Painter) -> None:
    worn = []
    for scale in (0.0, 1.0):
        painter.wear({path: scale})
        worn.append(painter.paint(["a red fish"], steps=2)[0].tobytes())

    assert worn[0] != worn[1]


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=lambda lesson: lesson.name)
def test_a_lora_is_small_and_names_its_layers_as_it_says(lesson: Lesson) -> None:
    path = LORAS / f"{lesson.name}.safetensors"

    names = load_file(path)

    assert path.stat().st_size < MOST_BYTES_OF_A_LORA
    assert all(name.startswith({"kohya": "lora_unet_", "diffusers": "unet."}[lesson.naming]) for name in names)
    assert any(name.endswith(".alpha") for name in names) == (lesson.naming == "kohya")
