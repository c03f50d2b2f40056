"""The layers that a LoRA file changes, and tensors that do not fit: a refusal lists the layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.lora.lora_file import read_lora
from runtime.weights.change import LowRank
from tests.unit.runtime import lora_files
from tests.unit.runtime.lora_files import (
    CONV,
    CROSS,
    DOWN,
    LAYER,
    UP,
    assert_refused,
    linear,
    pair,
    read_changes,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.safetensors"


def test_the_layer_a_pair_belongs_to(path: Path, sd15: Checkpoint) -> None:
    (layer,) = read_lora(lora_files.write(path, linear()), sd15.adaptable).layers
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


def test_only_low_rank_changes_are_kept_as_factors(path: Path, sd15: Checkpoint) -> None:
    mid = {"lora_down": (2, 16, 1, 1), "lora_mid": (2, 2, 3, 3), "lora_up": (16, 2, 1, 1)}
    tensors = linear() | {f"{CONV}.{name}.weight": torch.ones(shape) for name, shape in mid.items()}
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


@pytest.mark.parametrize("repeating", ["lora_" + LAYER.replace(".", "_"), f"unet.{LAYER}", LAYER.removeprefix("unet.")])
@pytest.mark.parametrize("suffix", ["lora_A.weight", "lora_A.default_0.weight", "lora_down.weight"])
def test_one_tensor_under_two_names_is_refused(path: Path, sd15: Checkpoint, repeating: str, suffix: str) -> None:
    tensors = linear() | {f"{repeating}.{suffix}": torch.zeros(2, 16)}
    assert_refused(
        lora_files.write(path, tensors), sd15, rf"fit \(1\): {LAYER}\.weight: .* repeats .*; expected one tensor"
    )


def test_one_layer_of_two_kinds_under_two_names_is_refused(path: Path, sd15: Checkpoint) -> None:
    tensors = linear() | {f"lora_{LAYER.replace('.', '_')}.diff": torch.zeros(16, 16)}
    assert_refused(lora_files.write(path, tensors), sd15, "the file has tensors of LoRA and full difference")


@pytest.mark.parametrize(("missing", "role"), [(DOWN, "down"), (UP, "up")])
def test_a_pair_without_one_tensor_is_refused(path: Path, sd15: Checkpoint, missing: str, role: str) -> None:
    assert_refused(
        lora_files.write(path, {n: t for n, t in linear().items() if n != missing}),
        sd15,
        f"the {role} tensor is missing",
    )


def test_an_alpha_alone_is_refused(path: Path, sd15: Checkpoint) -> None:
    assert_refused(
        lora_files.write(path, {f"{LAYER}.alpha": torch.tensor(1.0)}), sd15, "without the tensors that it scales"
    )


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
    assert_refused(lora_files.write(path, tensors), sd15, rf"Layers that do not fit \(1\): {reason}")


@pytest.mark.parametrize("down", [(2, 16), (2, 143), (2, 16, 1, 1), (2, 3, 16, 3)])
def test_wrong_kernels_are_refused(path: Path, sd15: Checkpoint, down: tuple[int, ...]) -> None:
    tensors = {f"{CONV}.lora_A.weight": torch.zeros(down), f"{CONV}.lora_B.weight": torch.zeros(16, 2, 1, 1)}
    assert_refused(lora_files.write(path, tensors), sd15, "Layers that do not fit")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
@pytest.mark.parametrize("name", [DOWN, UP])
def test_integer_factors_are_refused(path: Path, sd15: Checkpoint, name: str, dtype: torch.dtype) -> None:
    tensors = linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
    assert_refused(
        lora_files.write(path, tensors | {name: tensors[name].to(dtype)}), sd15, f"{name} has dtype (I8|I64|BOOL)"
    )


@pytest.mark.parametrize("alpha", [torch.zeros(2), torch.zeros(0), torch.zeros(2, 2)])
def test_an_alpha_of_several_numbers_is_refused(path: Path, sd15: Checkpoint, alpha: torch.Tensor) -> None:
    assert_refused(lora_files.write(path, linear() | {f"{LAYER}.alpha": alpha}), sd15, "expected a single number")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_alpha_of_any_dtype_is_a_number(
    path: Path, sd15: Checkpoint, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    alpha = torch.tensor(6.0).to(dtype).reshape(shape)
    layers = read_lora(lora_files.write(path, linear() | {f"{LAYER}.alpha": alpha}), sd15.adaptable).layers
    (change,) = read_changes(path, layers, 0.5).values()
    expected = 0.5 * 6 / 2 * linear()[UP] @ linear()[DOWN]
    torch.testing.assert_close(change.delta(torch.zeros(16, 16)), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", [DOWN, UP, f"{LAYER}.alpha"])
def test_unsupported_dtypes_are_refused(path: Path, sd15: Checkpoint, name: str, dtype: torch.dtype) -> None:
    tensors = linear() | {f"{LAYER}.alpha": torch.tensor(2.0)}
    assert_refused(
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
    assert_refused(lora_files.write(path, linear() | more), sd15, reason)


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
    assert_refused(lora_files.write(path, made), sd15, f"Layers that do not fit .*{reason}")


def test_a_lora_of_a_norm_is_refused(path: Path, sd15: Checkpoint) -> None:
    assert_refused(
        lora_files.write(path, pair("unet.conv_norm_out", 16, 16)), sd15, r"expected shape \[16\], found \[16, 16\]"
    )


@pytest.mark.parametrize("first", ["attn1.to_q", "to_q"])
def test_the_first_pattern_that_ends_a_layers_name_is_its_alpha(path: Path, sd15: Checkpoint, first: str) -> None:
    patterns = {"o_q": 1.0, "to_k": 2.0, first: 3.0} | {name: 4.0 for name in ("to_q", "attn1.to_q") if name != first}
    config = {"unet.lora_alpha": 5.0, "unet.alpha_pattern": patterns}
    (layer,) = read_lora(lora_files.write(path, linear(), config), sd15.adaptable).layers
    assert layer.alpha == 3.0


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
    assert_refused(lora_files.write(path, linear() | wrong | unknown), sd15, rf"Layers that do not fit \(1\): {CONV}")
