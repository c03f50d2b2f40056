"""LoRA files that do not fit: refused from the header, and the message lists what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.tensors import WeightFileError
from runtime.lora.file import LoraError, read_lora
from runtime.lora.load import load_factors
from runtime.weights import WeightSet
from tests.unit.runtime import lora_files
from tests.unit.runtime.lora_files import Tensors, pair

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # [16, 16]
CONV = "unet.down_blocks.0.resnets.0.conv1"  # [16, 16, 3, 3]
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.safetensors"


def _refused(path: Path, checkpoint: Checkpoint, reason: str) -> None:
    with pytest.raises(LoraError, match=reason):
        read_lora(path, checkpoint.adaptable)


def _linear() -> Tensors:
    return pair(LAYER, 16, 16)


def test_the_layer_a_pair_belongs_to(path: Path, sd15: Checkpoint) -> None:
    (layer,) = read_lora(lora_files.write(path, _linear()), sd15.adaptable)
    assert (layer.target.component, layer.rank, layer.alpha) == ("unet", 2, None)
    assert f"unet.{layer.target.parameter}" == f"{LAYER}.weight"


@pytest.mark.parametrize("style", ["peft", "kohya"])
@pytest.mark.parametrize(("lora", "model"), [("sd15", "sdxl"), ("sdxl", "sd15")])
def test_a_lora_of_another_architecture_is_refused(
    tiny: Path, request: pytest.FixtureRequest, style: str, lora: str, model: str
) -> None:
    _refused(tiny / f"loras/{lora}/{style}.safetensors", request.getfixturevalue(model), r"match nothing|do not fit")


def test_keys_that_match_nothing_are_listed(path: Path, sd15: Checkpoint) -> None:
    strangers = {f"unet.nowhere.{n}.lora_A.weight": torch.zeros(2, 2) for n in range(10)}
    _refused(
        lora_files.write(path, _linear() | strangers),
        sd15,
        r"^10 of its 12 keys match nothing: unet\.nowhere\.0\.lora_A\.weight, .*unet\.nowhere\.7.* and 2 more$",
    )


@pytest.mark.parametrize(
    "key",
    [
        f"{LAYER}.lora_A.bias",
        f"{LAYER}.weight",
        f"{LAYER}.dora_scale",
        f"{LAYER}.hada_w1_a",
        f"{LAYER}.lora_mid.weight",
        f"{LAYER}.diff",
        "unet.time_embedding.linear_1.bias.lora_A.weight",
        "unet.conv_norm_out.lora_A.weight",
        "lora_te_text_model_final_layer_norm.lora_down.weight",
        "lora_A.weight",
        ".lora_A.weight",
        "",
    ],
)
def test_no_key_is_ignored(path: Path, sd15: Checkpoint, key: str) -> None:
    _refused(lora_files.write(path, _linear() | {key: torch.zeros(2, 16)}), sd15, "1 of its 3 keys match nothing")


def test_one_layer_under_two_names_is_refused(path: Path, sd15: Checkpoint) -> None:
    kohya = {"lora_" + LAYER.replace(".", "_") + ".lora_down.weight": torch.zeros(2, 16)}
    _refused(lora_files.write(path, _linear() | kohya), sd15, "match nothing")


@pytest.mark.parametrize("missing", [DOWN, UP])
def test_half_a_pair_is_refused(path: Path, sd15: Checkpoint, missing: str) -> None:
    _refused(lora_files.write(path, {n: t for n, t in _linear().items() if n != missing}), sd15, "has no counterpart")


def test_an_alpha_alone_is_refused(path: Path, sd15: Checkpoint) -> None:
    _refused(lora_files.write(path, {f"{LAYER}.alpha": torch.tensor(1.0)}), sd15, "has no counterpart")


def test_an_empty_file_is_refused(path: Path, sd15: Checkpoint) -> None:
    _refused(lora_files.write(path, {}), sd15, "holds no tensors")


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ((2, 17), (16, 2)),
        ((2, 16), (17, 2)),
        ((2, 16), (16, 3)),
        ((0, 16), (16, 0)),
        ((16, 2), (2, 16)),
        ((2, 16, 1), (16, 2, 3)),
        ((2, 16), (16,)),
        ((), ()),
        ((32,), (32,)),
        ((2, 4, 4), (16, 2)),
    ],
)
def test_wrong_shapes_are_listed(path: Path, sd15: Checkpoint, down: tuple[int, ...], up: tuple[int, ...]) -> None:
    tensors = {DOWN: torch.zeros(down), UP: torch.zeros(up)}
    reason = rf"1 of its layers do not fit this checkpoint: {LAYER}\.weight \[16, 16\]"
    _refused(lora_files.write(path, tensors), sd15, reason)


@pytest.mark.parametrize("down", [(2, 16), (2, 144), (2, 16, 1, 1), (2, 3, 16, 3)])
def test_wrong_kernels_are_refused(path: Path, sd15: Checkpoint, down: tuple[int, ...]) -> None:
    tensors = {f"{CONV}.lora_A.weight": torch.zeros(down), f"{CONV}.lora_B.weight": torch.zeros(16, 2, 1, 1)}
    _refused(lora_files.write(path, tensors), sd15, "do not fit this checkpoint")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
@pytest.mark.parametrize("name", [DOWN, UP, f"{LAYER}.alpha"])
def test_integers_are_no_factors(path: Path, sd15: Checkpoint, name: str, dtype: torch.dtype) -> None:
    tensors = _linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
    _refused(lora_files.write(path, tensors | {name: tensors[name].to(dtype)}), sd15, f"{name} is (I8|I64|BOOL)")


@pytest.mark.parametrize("alpha", [torch.zeros(2), torch.zeros(0), torch.zeros(2, 2)])
def test_an_alpha_that_is_no_single_number_is_refused(path: Path, sd15: Checkpoint, alpha: torch.Tensor) -> None:
    _refused(lora_files.write(path, _linear() | {f"{LAYER}.alpha": alpha}), sd15, "is no single number")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [DOWN, UP, f"{LAYER}.alpha"])
def test_factors_that_are_not_finite_are_refused(path: Path, sd15: Checkpoint, name: str, value: float) -> None:
    tensors = _linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
    tensors[name].view(-1)[0] = value
    layers = read_lora(lora_files.write(path, tensors), sd15.adaptable)
    with pytest.raises(LoraError, match="not finite"):
        load_factors(path, layers, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "5",
        '{"a":' * 100_000,
        {"unet.lora_alpha": "big"},
        {"unet.lora_alpha": True},
        {"unet.lora_alpha": [1]},
        {"unet.lora_alpha": 10**400},
        {"unet.lora_alpha": float("nan")},
        {"unet.lora_alpha": float("inf")},
        {"unet.alpha_pattern": {"to_q": "big"}},
    ],
)
def test_hostile_metadata_is_refused(path: Path, sd15: Checkpoint, config: dict[str, Any] | str) -> None:
    _refused(lora_files.write(path, _linear(), config), sd15, "its metadata lora_adapter_metadata")


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff" * 64, b"<html>not found</html>", b"PK\x03\x04" * 20])
def test_what_is_no_safetensors_file_is_refused(path: Path, sd15: Checkpoint, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"not a readable \.safetensors file"):
        read_lora(path, sd15.adaptable)


_STEMS = st.sampled_from([LAYER, CONV, "lora_" + LAYER.replace(".", "_"), "lora_te_x", "unet", "text_encoder", ""])
_ENDS = st.sampled_from(
    [".lora_A.weight", ".lora_B.weight", ".alpha", ".lora_down.weight", "_lora.up.weight", ".weight", ""]
)
_KEYS = st.builds("{}{}{}".format, _STEMS, st.text(max_size=3), _ENDS) | st.builds("{}{}".format, _STEMS, _ENDS)
_SHAPES = st.lists(st.sampled_from([0, 1, 2, 16]), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.dictionaries(_KEYS.filter(lambda key: key != "__metadata__"), _SHAPES, max_size=4))
def test_any_keys_and_shapes_are_read_or_refused(path: Path, sd15: Checkpoint, shapes: dict[str, list[int]]) -> None:
    lora_files.write(path, {key: torch.zeros(shape) for key, shape in shapes.items()})
    try:
        layers = read_lora(path, sd15.adaptable)
        factors = load_factors(path, layers, 1.0)
    except (LoraError, WeightFileError):
        return
    for layer in layers:
        name = layer.target.parameter
        weight = torch.zeros(sd15.unet.shapes[name])
        merged = WeightSet(sd15.unet, low_rank={name: [factors[name]]}).merged(name, weight)
        assert merged.shape == weight.shape


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(head=st.binary(max_size=60), rest=st.binary(max_size=20))
def test_any_bytes_are_refused(path: Path, sd15: Checkpoint, head: bytes, rest: bytes) -> None:
    path.write_bytes(len(head).to_bytes(8, "little") + head + rest)
    with pytest.raises((LoraError, WeightFileError)):
        read_lora(path, sd15.adaptable)
