"""Malicious LoRA files: damaged headers, hostile metadata, numbers that are not finite, and any bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.safetensors_file import WeightFileError
from runtime.lora.kinds import KINDS, dora
from runtime.lora.layer_names import Target
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.lora.peft_metadata import PeftMetadata
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime import lora_files
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.lora_files import (
    CONV,
    DOWN,
    LAYER,
    UP,
    assert_refused,
    file_bytes,
    linear,
    read_changes,
)
from tests.unit.runtime.merging import Changes, merged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.safetensors"


def test_an_empty_file_is_refused(path: Path, sd15: Checkpoint) -> None:
    assert_refused(lora_files.write(path, {}), sd15, "the file has no tensors")


@pytest.mark.parametrize("scale", [1e39, -1e300, float("inf")])
def test_a_scale_that_float32_does_not_hold_is_refused(path: Path, sd15: Checkpoint, scale: float) -> None:
    layers = read_lora(lora_files.write(path, linear()), sd15.adaptable).layers
    with pytest.raises(LoraError, match="not finite in float32"):
        read_changes(path, layers, scale)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [DOWN, UP, f"{LAYER}.alpha"])
def test_factors_that_are_not_finite_are_refused(path: Path, sd15: Checkpoint, name: str, value: float) -> None:
    tensors = linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
    tensors[name].view(-1)[0] = value
    layers = read_lora(lora_files.write(path, tensors), sd15.adaptable).layers
    with pytest.raises(LoraError, match="not finite"):
        read_changes(path, layers, 1.0)


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
    assert_refused(lora_files.write(path, linear(), config), sd15, "metadata entry lora_adapter_metadata")


def _patterns(count: int) -> dict[str, str]:
    """Metadata with so many patterns."""
    return {lora_files.METADATA: json.dumps({"unet.alpha_pattern": dict.fromkeys(map(str, range(count)))})}


def test_as_many_patterns_as_the_bound_are_not_compared_with_every_layer() -> None:
    targets = [Target("unet", f"{number}.{LAYER}") for number in range(1000)]
    config = PeftMetadata(_patterns(65_000))
    assert [config.alpha(target) for target in targets] == [None] * 1000
    seconds = least_cpu_seconds(lambda: [config.alpha(target) for target in targets])
    assert seconds < 0.5, "a comparison with each takes minutes"


def test_a_million_patterns_are_refused_before_they_are_parsed() -> None:
    metadata = _patterns(10**6)

    def refuse() -> None:
        with pytest.raises(LoraError, match=r"lora_adapter_metadata has \d+ characters; expected at most 1048576"):
            PeftMetadata(metadata)

    assert least_cpu_seconds(refuse) < 0.1


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff" * 64, b"<html>not found</html>", b"PK\x03\x04" * 20])
def test_a_file_of_another_format_is_refused(path: Path, sd15: Checkpoint, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"not a readable \.safetensors file"):
        read_lora(path, sd15.adaptable)


def _entry(shape: list[int], end: int, dtype: str = "F32", begin: int = 0) -> dict[str, object]:
    return {DOWN: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


@pytest.mark.parametrize(
    "content",
    [
        file_bytes(_entry([2, 16], 128), bytes(127)),
        file_bytes(_entry([2, 16], 128), bytes(129)),
        file_bytes(_entry([2, 1_250_000_000], 10_000_000_000), bytes(128)),
        file_bytes(_entry([2, 16], 10_000_000_000), bytes(128)),
        file_bytes(_entry([1 << 63, 1 << 63], 128), bytes(128)),
        file_bytes(_entry([1 << 70], 128), bytes(128)),
        file_bytes(_entry([-2, -16], 128), bytes(128)),
        file_bytes(_entry([2, 16], 128, "F33"), bytes(128)),
        file_bytes(_entry([2, 16], 128, begin=-1), bytes(128)),
        file_bytes(_entry([2, 16], 0, begin=128), bytes(128)),
        file_bytes(_entry([2, 16], 128), bytes(128), length=1 << 62),
        file_bytes(_entry([2, 16], 128), bytes(128), length=10_000_000_000),
        file_bytes(_entry([2, 16], 128), bytes(128), length=3),
        file_bytes([1, 2], bytes(8)),
        file_bytes({DOWN: 5}, bytes(8)),
        file_bytes({"__metadata__": {"a": [1]}}),
    ],
)
def test_a_header_that_does_not_fit_the_data_is_refused(path: Path, sd15: Checkpoint, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"not a readable \.safetensors file"):
        read_lora(path, sd15.adaptable)


def test_a_truncated_file_is_refused_wherever_it_ends(path: Path, sd15: Checkpoint) -> None:
    whole = lora_files.write(path, linear()).read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(WeightFileError, match=r"not a readable \.safetensors file"):
            read_lora(path, sd15.adaptable)


_KEY_ENDS = [end for kind in KINDS for end in kind.roles] + [*dora.ROLES, ".alpha"]
_STEMS = st.sampled_from([LAYER, CONV, "lora_" + LAYER.replace(".", "_"), "lora_te_x", "unet", "text_encoder", ""])
_ENDS = st.sampled_from([*_KEY_ENDS, ".weight", ""])
_KEYS = st.builds("{}{}{}".format, _STEMS, st.text(max_size=3), _ENDS) | st.builds("{}{}".format, _STEMS, _ENDS)
_SHAPES = st.lists(st.sampled_from([0, 1, 2, 16]), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.dictionaries(_KEYS.filter(lambda key: key != "__metadata__"), _SHAPES, max_size=4))
def test_any_keys_and_shapes_are_read_or_refused(path: Path, sd15: Checkpoint, shapes: dict[str, list[int]]) -> None:
    lora_files.write(path, {key: torch.zeros(shape) for key, shape in shapes.items()})
    try:
        layers = read_lora(path, sd15.adaptable).layers
        changes = read_changes(path, layers, 1.0)
    except (LoraError, WeightFileError):
        return
    for layer in layers:
        name = layer.target.parameter
        weight = torch.ones(sd15.unet.shapes[name])
        found = merged(WeightSet(sd15.unet, (Changes("", {name: changes[name]}),)), name, weight)
        assert found.shape == weight.shape


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(head=st.binary(max_size=60), rest=st.binary(max_size=20))
def test_any_bytes_are_refused(path: Path, sd15: Checkpoint, head: bytes, rest: bytes) -> None:
    path.write_bytes(len(head).to_bytes(8, "little") + head + rest)
    with pytest.raises((LoraError, WeightFileError)):
        read_lora(path, sd15.adaptable)


def test_a_factor_that_float32_does_not_hold_is_refused(path: Path, sd15: Checkpoint) -> None:
    tensors = {name: tensor.double() for name, tensor in linear().items()}
    tensors[UP][0, 0] = 1e300
    layers = read_lora(lora_files.write(path, tensors), sd15.adaptable).layers
    with pytest.raises(LoraError, match="not finite in float32"):
        read_changes(path, layers, 1.0)


def test_the_message_for_a_hostile_header_is_short(path: Path, sd15: Checkpoint) -> None:
    header = {"a": {"dtype": "Q" * 1_000_000, "shape": [4], "data_offsets": [0, 16]}}
    path.write_bytes(file_bytes(header, bytes(16)))
    with pytest.raises(WeightFileError) as error:
        read_lora(path, sd15.adaptable)
    assert len(str(error.value)) < 300
