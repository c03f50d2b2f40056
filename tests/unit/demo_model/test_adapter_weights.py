"""The committed adapters are small, load in diffusers, and change the generated picture."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from deploy.demo_model.paths import CHECKPOINT, CONTROLNET, EMBEDDINGS, IP_ADAPTER, IP_ADAPTER_FILE
from deploy.demo_model.pipeline.adapter_pipelines import generate, with_controlnet, with_ip_adapter
from deploy.demo_model.pipeline.image_generator import ImageGenerator, load_image_generator
from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.embedding_specs import EMBEDDING_SPECS
from deploy.demo_model.world.scene import Scene, Thing, draw

PICTURE = draw(Scene("plain", "blue", (Thing("star", "red", "large"),)))


@pytest.fixture
def generator() -> ImageGenerator:
    """A new generator for each test, since a pipeline's adapters stay in its networks."""
    return load_image_generator(CHECKPOINT)


def _generated(pipeline: Any, text: str = "", **conditions: Any) -> Image.Image:
    (picture,) = generate(pipeline, [text], steps=2, **conditions)
    return picture


@pytest.mark.parametrize("name", EMBEDDING_SPECS)
def test_an_embedding_changes_what_its_token_generates(name: str, generator: ImageGenerator) -> None:
    path, spec = EMBEDDINGS / f"{name}.safetensors", EMBEDDING_SPECS[name]
    pipeline, text = generator.pipeline(), f"a {spec.token} on a meadow"

    before = _generated(pipeline, text)
    pipeline.load_textual_inversion(path)

    assert {key: tuple(value.shape) for key, value in load_file(path).items()} == {spec.token: (spec.vectors, 128)}
    assert _generated(pipeline, text) != before


def test_a_controlnet_is_small_and_follows_its_picture(generator: ImageGenerator) -> None:
    pipeline = with_controlnet(generator)
    blank = Image.new("RGB", PICTURE.size)

    lines, none, off = (
        _generated(pipeline, image=control, controlnet_conditioning_scale=scale)
        for control, scale in ((edges(PICTURE), 1.0), (blank, 1.0), (blank, 0.0))
    )

    assert (CONTROLNET / "diffusion_pytorch_model.safetensors").stat().st_size < 4_800_000
    assert lines != none != off
    assert off == _generated(generator.pipeline())


def test_an_ip_adapter_is_small_and_follows_its_picture(generator: ImageGenerator) -> None:
    plain = _generated(generator.pipeline())
    pipeline = with_ip_adapter(generator)
    other = draw(Scene("meadow", "", (Thing("house", "white"),)))

    one, two = (_generated(pipeline, ip_adapter_image=[picture]) for picture in (PICTURE, other))
    pipeline.set_ip_adapter_scale(0.0)
    off = _generated(pipeline, ip_adapter_image=[PICTURE])

    assert sum(path.stat().st_size for path in IP_ADAPTER.rglob("*") if path.is_file()) < 2_500_000
    assert one != two
    # The adapter's processors compute the same attention in another order.
    assert _most_different(off, plain) <= 16 < _most_different(one, off)


def test_an_ip_adapter_names_its_layers_as_published_ones_do() -> None:
    """As in `ip-adapter_sd15`: cross attentions have the odd indices."""
    names = set(load_file(IP_ADAPTER / IP_ADAPTER_FILE))

    layers = {f"ip_adapter.{index}.{which}_ip.weight" for index in range(1, 15, 2) for which in ("to_k", "to_v")}
    projection = {f"image_proj.{part}.{which}" for part in ("proj", "norm") for which in ("weight", "bias")}
    assert names == layers | projection


def _most_different(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())
