"""LoRA files are read from the header: what does not fit is refused, and the message lists the differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component, WeightFile
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.lora.kinds import KINDS, dora
from runtime.lora.layer_names import Target
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.lora.peft_metadata import PeftMetadata
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime import lora_files
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.lora_files import Tensors, pair, read_changes
from tests.unit.runtime.merging import Changes, merged

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # [16, 16]
CONV = "unet.down_blocks.0.resnets.0.conv1"  # [16, 16, 3, 3]
CROSS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
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
    (layer,) = read_lora(lora_files.write(path, _linear()), sd15.adaptable).layers
    assert (layer.target.component, layer.kind.name, layer.low_rank, layer.alpha) == ("unet", "LoRA", 2, None)
    assert f"unet.{layer.target.parameter}" == f"{LAYER}.weight"


PAIR = {"lora_down.weight": (3, 16), "lora_up.weight": (16, 3)}
TUCKER = {"lora_down.weight": (3, 16, 1, 1), "lora_mid.weight": (3, 3, 3, 3), "lora_up.weight": (16, 3, 1, 1)}


@pytest.mark.parametrize(
    ("stem", "tensors", "rank"),
    [
        (LAYER, PAIR, 3),
        (LAYER, PAIR | {"alpha": (1,)}, 3),
        (CONV, {"lora_down.weight": (3, 16, 3, 3), "lora_up.weight": (16, 3, 1, 1)}, 3),
        (CONV, TUCKER, 3),
        (CONV, TUCKER | {"dora_scale": (16, 1, 1, 1)}, None),
        (LAYER, PAIR | {"dora_scale": (16, 1)}, None),
        (LAYER, PAIR | {"lora_magnitude_vector": (16,)}, None),
        (LAYER, {"hada_w1_a": (16, 2), "hada_w1_b": (2, 16), "hada_w2_a": (16, 2), "hada_w2_b": (2, 16)}, None),
        (LAYER, {"lokr_w1": (4, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)}, None),
        (LAYER, {"diff": (16, 16)}, None),
        (CONV, {"diff_b": (16,)}, None),
    ],
)
def test_the_rank_of_a_low_rank_change_is_known_without_reading(
    path: Path, sd15: Checkpoint, stem: str, tensors: dict[str, tuple[int, ...]], rank: int | None
) -> None:
    lora_files.write(path, {f"{stem}.{name}": torch.ones(shape) for name, shape in tensors.items()})
    (layer,) = read_lora(path, sd15.adaptable).layers
    assert layer.low_rank == rank
    factors = {role: torch.ones(tensors[key.removeprefix(f"{stem}.")]) for role, key in layer.keys.items()}
    change = layer.kind.change(factors, 1.0)
    if rank is not None:
        assert isinstance(change, LowRank)
        assert change.up.shape[1] == change.down.shape[0] == rank
    else:
        assert layer.magnitude or not isinstance(change, LowRank)


@pytest.mark.parametrize("style", ["peft", "kohya"])
@pytest.mark.parametrize(("lora", "model"), [("sd15", "sdxl"), ("sdxl", "sd15")])
def test_a_lora_of_another_architecture_is_refused(
    tiny: Path, request: pytest.FixtureRequest, style: str, lora: str, model: str
) -> None:
    _refused(tiny / f"loras/{lora}/{style}.safetensors", request.getfixturevalue(model), r"name no layer|do not fit")


def _genuine(path: Path, width: int) -> Component:
    """A UNet's cross-attention of a genuine width, alone."""
    save_file({f"{CROSS}.to_k.weight": torch.zeros(4, width), f"{CROSS}.to_v.weight": torch.zeros(4, width)}, path)
    return Component(role="unet", config={}, files=(WeightFile(path=path, digest=""),))


@pytest.mark.parametrize(
    ("lora", "model", "reason"),
    [
        (2048, 768, r"made for SDXL \(text width 2048\), but the checkpoint is SD 1\.x \(text width 768\); "),
        (1024, 768, r"made for SD 2\.x \(text width 1024\), but the checkpoint is SD 1\.x \(text width 768\); "),
        (768, 2048, r"made for SD 1\.x \(text width 768\), but the checkpoint is SDXL \(text width 2048\); "),
    ],
)
@pytest.mark.parametrize("style", ["unet", "lora_unet"])
def test_the_model_that_a_lora_was_made_for_is_named(
    path: Path, tmp_path: Path, lora: int, model: int, reason: str, style: str
) -> None:
    stem = f"unet.{CROSS}.to_k" if style == "unet" else f"lora_unet_{CROSS.replace('.', '_')}_to_k"
    lora_files.write(path, pair(stem, 4, lora))
    shapes = rf".*fit \(1\): unet\.{CROSS}\.to_k\.weight: expected shape \[4, {model}\], found \[4, {lora}\]$"
    with pytest.raises(LoraError, match=f"^this LoRA was {reason}{shapes}"):
        read_lora(path, [_genuine(tmp_path / "unet.safetensors", model)])


def test_a_lora_of_two_text_encoders_is_recognized_by_the_second(path: Path, sd15: Checkpoint) -> None:
    tensors = pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", 64, 32)
    _refused(
        lora_files.write(path, tensors),
        sd15,
        "made for two text encoders, as in SDXL, but the checkpoint has one;.*2 of 2",
    )


def test_only_low_rank_changes_are_kept_as_factors(path: Path, sd15: Checkpoint) -> None:
    mid = {"lora_down": (2, 16, 1, 1), "lora_mid": (2, 2, 3, 3), "lora_up": (16, 2, 1, 1)}
    tensors = _linear() | {f"{CONV}.{name}.weight": torch.ones(shape) for name, shape in mid.items()}
    tensors |= {f"unet.{CROSS}.to_k.lokr_w1": torch.ones(4, 4), f"unet.{CROSS}.to_k.lokr_w2": torch.ones(8, 8)}
    tensors |= {f"{CONV}.diff_b": torch.ones(16)}
    layers = read_lora(lora_files.write(path, tensors), sd15.adaptable).layers
    changes = lora_files.source(path, layers, 1.0)
    kinds = {name: isinstance(changes.read(name), LowRank) for name in changes.names}
    low_rank = {f"{name.removeprefix('unet.')}.weight": True for name in (LAYER, CONV)}
    assert kinds == low_rank | {f"{CROSS}.to_k.weight": False, f"{CONV.removeprefix('unet.')}.bias": False}
    assert {name: changes.rank(name) for name in changes.names} == {
        name: 2 if is_low_rank else None for name, is_low_rank in kinds.items()
    }


def test_a_file_whose_keys_name_no_layer_is_refused_and_the_keys_are_listed(path: Path, sd15: Checkpoint) -> None:
    unknown = {f"unet.nowhere.{n}.lora_A.weight": torch.zeros(2, 2) for n in range(10)}
    _refused(
        lora_files.write(path, unknown | {"vae.x.lora_A.weight": torch.zeros(2, 2)}),
        sd15,
        r"Keys for other components \(1 of 11\): vae\.x\.lora_A\.weight; "
        r"Keys that name no layer \(10 of 11\): unet\.nowhere\.0\.lora_A\.weight, .*unet\.nowhere\.3.* and 6 more$",
    )


@pytest.mark.parametrize("repeating", ["lora_" + LAYER.replace(".", "_"), f"unet.{LAYER}", LAYER.removeprefix("unet.")])
@pytest.mark.parametrize("suffix", ["lora_A.weight", "lora_A.default_0.weight", "lora_down.weight"])
def test_one_tensor_under_two_names_is_refused(path: Path, sd15: Checkpoint, repeating: str, suffix: str) -> None:
    tensors = _linear() | {f"{repeating}.{suffix}": torch.zeros(2, 16)}
    _refused(lora_files.write(path, tensors), sd15, rf"fit \(1\): {LAYER}\.weight: .* repeats .*; expected one tensor")


def test_one_layer_of_two_kinds_under_two_names_is_refused(path: Path, sd15: Checkpoint) -> None:
    tensors = _linear() | {f"lora_{LAYER.replace('.', '_')}.diff": torch.zeros(16, 16)}
    _refused(lora_files.write(path, tensors), sd15, "the file has tensors of LoRA and full difference")


@pytest.mark.parametrize(("missing", "role"), [(DOWN, "down"), (UP, "up")])
def test_a_pair_without_one_tensor_is_refused(path: Path, sd15: Checkpoint, missing: str, role: str) -> None:
    _refused(
        lora_files.write(path, {n: t for n, t in _linear().items() if n != missing}),
        sd15,
        f"the {role} tensor is missing",
    )


def test_an_alpha_alone_is_refused(path: Path, sd15: Checkpoint) -> None:
    _refused(lora_files.write(path, {f"{LAYER}.alpha": torch.tensor(1.0)}), sd15, "without the tensors that it scales")


def test_an_empty_file_is_refused(path: Path, sd15: Checkpoint) -> None:
    _refused(lora_files.write(path, {}), sd15, "the file has no tensors")


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
    reason = rf"{LAYER}\.weight: (expected shape \[16, 16\], found \[|.* cannot be multiplied)"
    _refused(lora_files.write(path, tensors), sd15, rf"Layers that do not fit \(1\): {reason}")


@pytest.mark.parametrize("down", [(2, 16), (2, 143), (2, 16, 1, 1), (2, 3, 16, 3)])
def test_wrong_kernels_are_refused(path: Path, sd15: Checkpoint, down: tuple[int, ...]) -> None:
    tensors = {f"{CONV}.lora_A.weight": torch.zeros(down), f"{CONV}.lora_B.weight": torch.zeros(16, 2, 1, 1)}
    _refused(lora_files.write(path, tensors), sd15, "Layers that do not fit")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
@pytest.mark.parametrize("name", [DOWN, UP])
def test_integer_factors_are_refused(path: Path, sd15: Checkpoint, name: str, dtype: torch.dtype) -> None:
    tensors = _linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
    _refused(lora_files.write(path, tensors | {name: tensors[name].to(dtype)}), sd15, f"{name} has dtype (I8|I64|BOOL)")


@pytest.mark.parametrize("alpha", [torch.zeros(2), torch.zeros(0), torch.zeros(2, 2)])
def test_an_alpha_of_several_numbers_is_refused(path: Path, sd15: Checkpoint, alpha: torch.Tensor) -> None:
    _refused(lora_files.write(path, _linear() | {f"{LAYER}.alpha": alpha}), sd15, "expected a single number")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_alpha_of_any_dtype_is_a_number(
    path: Path, sd15: Checkpoint, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    alpha = torch.tensor(6.0).to(dtype).reshape(shape)
    layers = read_lora(lora_files.write(path, _linear() | {f"{LAYER}.alpha": alpha}), sd15.adaptable).layers
    (change,) = read_changes(path, layers, 0.5).values()
    expected = 0.5 * 6 / 2 * _linear()[UP] @ _linear()[DOWN]
    torch.testing.assert_close(change.delta(torch.zeros(16, 16)), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", [DOWN, UP, f"{LAYER}.alpha"])
def test_unsupported_dtypes_are_refused(path: Path, sd15: Checkpoint, name: str, dtype: torch.dtype) -> None:
    tensors = _linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
    _refused(
        lora_files.write(path, tensors | {name: tensors[name].to(dtype)}),
        sd15,
        f"{name} has dtype (F8_E4M3|BOOL); expected",
    )


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"dora_scale": (17, 1)}, r"dora_scale has shape \[17, 1\]; expected .* for a weight of shape \[16, 16\]"),
        ({"dora_scale": (1, 17)}, "dora_scale has shape"),
        ({"dora_scale": (4, 4)}, "dora_scale has shape"),
        ({"dora_scale": ()}, "dora_scale has shape"),
        ({"lora_magnitude_vector": (17,)}, "lora_magnitude_vector has shape"),
        ({"lora_magnitude_vector": (16,), "dora_scale": (16, 1)}, "the file has two DoRA magnitudes"),
        ({"lora_mid.weight": (2, 2)}, "up, mid and down have shapes"),
        ({"lora_mid.weight": (3, 3, 1, 1)}, "cannot be multiplied"),
        ({"hada_w1_a": (16, 2)}, "the file has tensors of LoHa and LoRA;"),
        ({"diff": (16, 16)}, "the file has tensors of LoRA and full difference;"),
    ],
)
def test_tensors_that_conflict_with_a_pair_are_refused(
    path: Path, sd15: Checkpoint, tensors: dict[str, tuple[int, ...]], reason: str
) -> None:
    more = {f"{LAYER}.{name}": torch.zeros(shape) for name, shape in tensors.items()}
    _refused(lora_files.write(path, _linear() | more), sd15, reason)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"lokr_w1": (4, 4), "lokr_w2": (4, 5)}, r"expected shape \[16, 16\], found \[16, 20\]"),
        ({"lokr_w1": (4, 4), "lokr_w2": (4, 2, 2)}, "expected shape"),
        ({"lokr_w1": (4,), "lokr_w2": (4, 16)}, "lokr_w1 and lokr_w2 have shapes"),
        ({"lokr_w1": (4, 4)}, "the lokr_w2_a tensor is missing"),
        ({"lokr_w1": (4, 4), "lokr_w2": (4, 4), "lokr_w2_a": (4, 1)}, "lokr_w2 both as one tensor and as a product"),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (4, 2), "lokr_w2_b": (3, 4)}, "cannot be multiplied"),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (4, 0), "lokr_w2_b": (0, 4)}, "cannot be multiplied"),
        ({"lokr_w1": (0, 1 << 60), "lokr_w2": (1, 1)}, "expected shape"),
        ({"hada_w1_a": (16, 2), "hada_w1_b": (2, 16), "hada_w2_a": (16, 2)}, "the hada_w2_b tensor is missing"),
        (
            {"hada_w1_a": (16, 2), "hada_w1_b": (2, 16), "hada_w2_a": (16, 2), "hada_w2_b": (2, 15)},
            "the two products have shapes",
        ),
        (
            {"hada_w1_a": (16, 2), "hada_w1_b": (2, 16), "hada_w2_a": (16, 1), "hada_w2_b": (1, 16)},
            "the two products have shapes",
        ),
        ({"diff": (16, 15)}, "expected shape"),
        ({"diff": ()}, "expected shape"),
        ({"dora_scale": (16, 1)}, "without the tensors that it scales"),
    ],
)
def test_other_kinds_that_do_not_fit_are_refused(
    path: Path, sd15: Checkpoint, tensors: dict[str, tuple[int, ...]], reason: str
) -> None:
    made = {f"{LAYER}.{name}": torch.zeros(shape) for name, shape in tensors.items()}
    _refused(lora_files.write(path, made), sd15, f"Layers that do not fit .*{reason}")


def test_a_lora_of_a_norm_is_refused(path: Path, sd15: Checkpoint) -> None:
    _refused(
        lora_files.write(path, pair("unet.conv_norm_out", 16, 16)), sd15, r"expected shape \[16\], found \[16, 16\]"
    )


@pytest.mark.parametrize("scale", [1e39, -1e300, float("inf")])
def test_a_scale_that_float32_does_not_hold_is_refused(path: Path, sd15: Checkpoint, scale: float) -> None:
    layers = read_lora(lora_files.write(path, _linear()), sd15.adaptable).layers
    with pytest.raises(LoraError, match="not finite in float32"):
        read_changes(path, layers, scale)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [DOWN, UP, f"{LAYER}.alpha"])
def test_factors_that_are_not_finite_are_refused(path: Path, sd15: Checkpoint, name: str, value: float) -> None:
    tensors = _linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
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
    _refused(lora_files.write(path, _linear(), config), sd15, "metadata entry lora_adapter_metadata")


@pytest.mark.parametrize("first", ["attn1.to_q", "to_q"])
def test_the_first_pattern_that_ends_a_layers_name_is_its_alpha(path: Path, sd15: Checkpoint, first: str) -> None:
    patterns = {"o_q": 1.0, "to_k": 2.0, first: 3.0} | {name: 4.0 for name in ("to_q", "attn1.to_q") if name != first}
    config = {"unet.lora_alpha": 5.0, "unet.alpha_pattern": patterns}
    (layer,) = read_lora(lora_files.write(path, _linear(), config), sd15.adaptable).layers
    assert layer.alpha == 3.0


def test_a_million_patterns_are_not_compared_with_every_layer() -> None:
    targets = [Target("unet", f"{number}.{LAYER}") for number in range(1000)]
    patterns = dict.fromkeys(map(str, range(10**6)))
    config = PeftMetadata({lora_files.METADATA: json.dumps({"unet.alpha_pattern": patterns})})
    assert [config.alpha(target) for target in targets] == [None] * 1000
    seconds = least_cpu_seconds(lambda: [config.alpha(target) for target in targets])
    assert seconds < 5, "a comparison with each takes minutes"


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff" * 64, b"<html>not found</html>", b"PK\x03\x04" * 20])
def test_a_file_of_another_format_is_refused(path: Path, sd15: Checkpoint, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"not a readable \.safetensors file"):
        read_lora(path, sd15.adaptable)


def _bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a .safetensors file; `length` is the header length that it states."""
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(shape: list[int], end: int, dtype: str = "F32", begin: int = 0) -> dict[str, object]:
    return {DOWN: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


@pytest.mark.parametrize(
    "content",
    [
        _bytes(_entry([2, 16], 128), bytes(127)),
        _bytes(_entry([2, 16], 128), bytes(129)),
        _bytes(_entry([2, 1_250_000_000], 10_000_000_000), bytes(128)),
        _bytes(_entry([2, 16], 10_000_000_000), bytes(128)),
        _bytes(_entry([1 << 63, 1 << 63], 128), bytes(128)),
        _bytes(_entry([1 << 70], 128), bytes(128)),
        _bytes(_entry([-2, -16], 128), bytes(128)),
        _bytes(_entry([2, 16], 128, "F33"), bytes(128)),
        _bytes(_entry([2, 16], 128, begin=-1), bytes(128)),
        _bytes(_entry([2, 16], 0, begin=128), bytes(128)),
        _bytes(_entry([2, 16], 128), bytes(128), length=1 << 62),
        _bytes(_entry([2, 16], 128), bytes(128), length=10_000_000_000),
        _bytes(_entry([2, 16], 128), bytes(128), length=3),
        _bytes([1, 2], bytes(8)),
        _bytes({DOWN: 5}, bytes(8)),
        _bytes({"__metadata__": {"a": [1]}}),
    ],
)
def test_a_header_that_does_not_fit_the_data_is_refused(path: Path, sd15: Checkpoint, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"not a readable \.safetensors file"):
        read_lora(path, sd15.adaptable)


def test_a_truncated_file_is_refused_wherever_it_ends(path: Path, sd15: Checkpoint) -> None:
    whole = lora_files.write(path, _linear()).read_bytes()
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


@pytest.mark.parametrize(
    ("stem", "made_for"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_proj", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_k_proj", "Stable Diffusion 3"),
    ],
)
def test_a_lora_of_a_transformer_is_refused_by_its_name(path: Path, sd15: Checkpoint, stem: str, made_for: str) -> None:
    _refused(lora_files.write(path, pair(stem, 8, 8)), sd15, rf"made for {made_for}; .*\(2 of 2\)")


@pytest.mark.parametrize(
    ("stem", "made_for"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", "Flux"),
        ("unet.down_blocks.0.motion_modules.0.temporal_transformer.proj_in", "AnimateDiff"),
        ("lora_prior_unet_down_blocks_0_0_attention", "Stable Cascade"),
        ("lycoris_transformer_blocks_0_img_mlp_net_0_proj", "Qwen-Image"),
        ("diffusion_model.blocks.0.cross_attn.k", "Wan"),
        ("diffusion_model.layers.0.attention.to_q", "Z-Image"),
    ],
)
def test_a_lora_of_another_network_is_refused_though_some_keys_match(
    path: Path, sd15: Checkpoint, stem: str, made_for: str
) -> None:
    tensors = _linear() | pair("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 32, 32) | pair(stem, 8, 8)
    _refused(lora_files.write(path, tensors), sd15, rf"^this LoRA was made for {made_for}; .* \(2 of 6\): ")


def test_a_bundled_embedding_is_no_sign_of_another_network(path: Path, sd15: Checkpoint) -> None:
    tensors = _linear() | {"bundle_emb.double_blocks.clip_l": torch.zeros(2, 32)}
    assert len(read_lora(lora_files.write(path, tensors), sd15.adaptable).layers) == 1


def test_a_lora_of_another_text_width_is_refused_though_some_keys_match(path: Path, sd15: Checkpoint) -> None:
    unknown = pair(f"unet.{CROSS.replace('transformer_blocks.0.', 'transformer_blocks.7.')}.to_k", 32, 48)
    _refused(lora_files.write(path, _linear() | unknown), sd15, r"made for another model \(text width 48\)")


@pytest.mark.parametrize("prefix", ["lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer.", "clip_g."])
@pytest.mark.parametrize("matching", [1, 2])
def test_a_lora_of_two_text_encoders_is_refused_unless_most_keys_match(
    path: Path, sd15: Checkpoint, prefix: str, matching: int
) -> None:
    tensors = pair(f"{prefix}text_model.encoder.layers.0.self_attn.q_proj", 48, 48)
    for name in ("q_proj", "k_proj")[:matching]:
        tensors |= pair(f"lora_te1_text_model_encoder_layers_0_self_attn_{name}", 32, 32)
    lora_files.write(path, tensors)
    if matching == 1:
        _refused(path, sd15, r"made for two text encoders, .* Keys for other components \(2 of 4\)")
    else:
        assert len(read_lora(path, sd15.adaptable).layers) == 2


@pytest.mark.parametrize("more", [{"bundle_emb.x.clip_l": (2, 32)}, {"stranger": (1,)}, {"vae.x.alpha": ()}])
@pytest.mark.parametrize("spoil", ["shape", "half", "dtype"])
def test_a_layer_that_does_not_fit_is_refused_whatever_else_the_file_has(
    path: Path, sd15: Checkpoint, more: dict[str, tuple[int, ...]], spoil: str
) -> None:
    wrong = pair(CONV, 8 if spoil == "shape" else 16, 144)
    if spoil == "half":
        wrong.popitem()
    elif spoil == "dtype":
        wrong = {name: tensor.to(torch.int8) for name, tensor in wrong.items()}
    unknown = {name: torch.zeros(shape) for name, shape in more.items()}
    _refused(lora_files.write(path, _linear() | wrong | unknown), sd15, rf"Layers that do not fit \(1\): {CONV}")


@pytest.mark.parametrize("file", ["sd15/unet/diffusion_pytorch_model", "single/sd15"])
def test_whole_weights_are_no_lora(tiny: Path, sd15: Checkpoint, file: str) -> None:
    reason = "this file has whole weights, not a LoRA; give a checkpoint in model_name"
    _refused(tiny / f"{file}.safetensors", sd15, reason)


@pytest.mark.parametrize("keys", [("emb_params",), ("clip_l", "clip_g")])
def test_an_embedding_is_no_lora(path: Path, sd15: Checkpoint, keys: tuple[str, ...]) -> None:
    lora_files.write(path, {key: torch.zeros(2, 32) for key in keys})
    _refused(path, sd15, "this file is a textual inversion embedding, not a LoRA")


def test_a_factor_that_float32_does_not_hold_is_refused(path: Path, sd15: Checkpoint) -> None:
    tensors = {name: tensor.double() for name, tensor in _linear().items()}
    tensors[UP][0, 0] = 1e300
    layers = read_lora(lora_files.write(path, tensors), sd15.adaptable).layers
    with pytest.raises(LoraError, match="not finite in float32"):
        read_changes(path, layers, 1.0)


def test_the_message_for_a_hostile_header_is_short(path: Path, sd15: Checkpoint) -> None:
    header = {"a": {"dtype": "Q" * 1_000_000, "shape": [4], "data_offsets": [0, 16]}}
    path.write_bytes(_bytes(header, bytes(16)))
    with pytest.raises(WeightFileError) as error:
        read_lora(path, sd15.adaptable)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(("megabytes", "remembered"), [(0, True), (2, False)])
def test_large_headers_are_not_kept_in_memory(path: Path, megabytes: int, remembered: bool) -> None:
    save_file(_linear(), path, {"note": " " * (megabytes << 20)})
    assert (read_header(path) is read_header(path)) == remembered
