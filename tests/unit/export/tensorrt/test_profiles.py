"""Profiles: the sizes in a settings file, and the shapes of a graph's inputs that follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from export.errors import ExportError
from export.tensorrt.profiles import default_profiles, input_shapes, read_profiles
from runtime.networks.architecture import NetworkKind
from tests.unit.export.conftest import Graphs
from tests.unit.export.tensorrt.plans import PROFILE


@pytest.mark.parametrize(("name", "typical"), [("sd15 unet", 64), ("sdxl unet", 128)])
def test_the_default_profiles_are_those_of_the_model(graphs: Graphs, name: str, typical: int) -> None:
    """A network of another kind says nothing of the model."""
    architectures = [graphs.network(one).architecture for one in ("sd15 vae_decoder", name)]
    profiles = read_profiles(default_profiles(architectures))
    assert profiles.keys() == set(get_args(NetworkKind))
    assert profiles["unet"].height == (8, typical, 256)
    assert profiles["vae_decoder"].width == (1, typical, 256)  # a tile at the edge of a picture may be one latent wide


def test_the_shapes_of_a_unet(graphs: Graphs) -> None:
    architecture = graphs.network("sd15 unet").architecture
    shapes = input_shapes(graphs.artifact("sd15 unet", "linear").manifest, architecture, PROFILE)
    assert shapes["latent"] == ((1, 4, 3, 3), (2, 4, 8, 8), (4, 4, 16, 16))
    assert shapes["t"] == ((1,), (2,), (4,))
    assert shapes["text"] == ((1, 77, 32), (2, 77, 32), (4, 154, 32))
    # Without a ControlNet, one zero is broadcast.
    assert [shape[0] for shape in shapes["residual_0"]] == [1, 1, 4]
    assert [shape[2:] for shape in shapes["residual_0"]] == [(1, 1), (1, 1), (16, 16)]
    assert [shape[1:3] for shape in shapes["ip_k"]] == [(0, 1), (0, 1), (2, 16)]
    # A mask of one query is the whole picture.
    assert shapes["ip_mask_0"] == ((1, 0, 1), (2, 0, 1), (4, 2, 256))
    layer = next(name for name in shapes if name.endswith("to_q.lora_a"))
    assert [shape[:2] for shape in shapes[layer]] == [(1, 0), (2, 0), (4, 64)]


def test_the_shapes_of_a_vae(graphs: Graphs) -> None:
    architecture = graphs.network("sd15 vae_encoder").architecture
    shapes = input_shapes(graphs.artifact("sd15 vae_encoder", "none").manifest, architecture, PROFILE)
    assert shapes == {"pixels": ((1, 3, 24, 24), (2, 3, 64, 64), (4, 3, 128, 128))}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSON"),
        ({"unets": {}}, "unets"),
        ({"unet": {"rows": [1, 2, 4]}}, "unet.height: Field required"),
        ({"unet": {"rows": [2, 1, 4], "height": [8, 8, 8], "width": [8, 8, 8]}}, "rows: expected smallest, typical"),
        ({"unet": {"rows": [-1, 1, 4], "height": [8, 8, 8], "width": [8, 8, 8]}}, "rows: expected smallest, typical"),
        (
            {"unet": {"rows": [1, 1, 1], "height": [8, 8, 8], "width": [8, 8, 8], "rank": [16, 16, 64]}},
            "rank: expected 0 as the smallest",
        ),
        ({"unet": {"rows": [1, 1], "height": [8, 8, 8], "width": [8, 8, 8]}}, "unet.rows"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "profiles.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ExportError, match=reason) as error:
        read_profiles(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"none\.json: it cannot be read"):
        read_profiles(tmp_path / "none.json")
