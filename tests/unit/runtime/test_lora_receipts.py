"""Keys that nothing uses do not refuse a LoRA file; the receipt says what of the file is applied, and how strongly."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.stored_file import FileChangedError, StoredFile, file_fingerprint
from runtime.lora.alphas import read_alphas
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.lora.lora_receipt import LoraLayerGroup, LoraReceipt, UnmatchedGroup, make_lora_receipt
from runtime.lora.unmatched import UnmatchedKind
from tests.unit.runtime import lora_files
from tests.unit.runtime.lora_files import Tensors, pair
from tests.unit.runtime.tiny_checkpoints import digest

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # [16, 16]
CROSS = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "unet.down_blocks.0.resnets.0.conv1"  # [16, 16, 3, 3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.safetensors"


def _receipt(path: Path, checkpoint: Checkpoint) -> LoraReceipt:
    stored, contents = digest(path), read_lora(path, checkpoint.adaptable)
    return make_lora_receipt(contents, read_alphas(stored, contents))


def _zeros(*names: str) -> Tensors:
    return {name: torch.zeros(2, 16) for name in names}


def _unmatched(path: Path, checkpoint: Checkpoint, *names: str) -> dict[UnmatchedKind, list[str]]:
    """What of these keys, beside a layer's pair, matches nothing."""
    contents = read_lora(lora_files.write(path, pair(LAYER, 16, 16) | _zeros(*names)), checkpoint.adaptable)
    (layer,) = contents.layers
    assert f"unet.{layer.target.parameter}" == f"{LAYER}.weight"
    return {kind: list(keys) for kind, keys in contents.unmatched.items()}


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (UnmatchedKind.EMBEDDING, "bundle_emb.my character.clip_l"),
        (UnmatchedKind.OUTPUT_EMBEDDING, "bundle_emb.joint_blocks.clip_g_out"),
        (UnmatchedKind.COMPONENT, "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha"),
        (
            UnmatchedKind.COMPONENT,
            "text_encoders.clip_g.transformer.text_projection.lora_up.weight",
        ),
        (UnmatchedKind.COMPONENT, "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"),
        (UnmatchedKind.COMPONENT, "vae.decoder.conv_in.lora_A.weight"),
        (UnmatchedKind.UNSUPPORTED, f"{LAYER}.lora_B.bias"),
        (UnmatchedKind.UNSUPPORTED, f"{LAYER}.weight"),
        (UnmatchedKind.UNSUPPORTED, f"{LAYER}.diff_b"),
        (UnmatchedKind.UNSUPPORTED, f"lora_{CROSS.replace('.', '_')}.oft_blocks"),
        (UnmatchedKind.UNSUPPORTED, f"{LAYER}.lokr_t1"),
        (UnmatchedKind.UNSUPPORTED, "unet.time_embedding.linear_1.bias.lora_A.weight"),
        (UnmatchedKind.LAYER, "unet.nowhere.lora_A.weight"),
        (UnmatchedKind.LAYER, "stranger"),
        (UnmatchedKind.LAYER, "lora_A.weight"),
        (UnmatchedKind.LAYER, ".lora_A.weight"),
        (UnmatchedKind.LAYER, "." * 20),
        (UnmatchedKind.LAYER, ""),
    ],
)
def test_a_key_that_nothing_uses_is_listed_by_its_kind(
    path: Path, sd15: Checkpoint, kind: UnmatchedKind, key: str
) -> None:
    assert _unmatched(path, sd15, key) == {kind: [key]}


# Suffixes of a layer's tensors in LyCORIS' modules, in kohya's and in PEFT's.
UNSUPPORTED = {
    "OFT of LyCORIS": (".oft_blocks", ".rescale", ".alpha"),
    "OFT of PEFT": (".oft_R.default.weight", ".alpha"),
    "GLoRA": (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight", ".bm.weight", ".alpha"),
    "T-LoRA": (".q_layer.weight", ".p_layer.weight", ".lambda_layer", ".alpha"),
    "(IA)3": (".weight", ".on_input"),
    "with a magnitude": (".oft_blocks", ".dora_scale"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_the_alpha_of_an_unsupported_kind_is_listed_with_its_other_keys(
    path: Path, sd15: Checkpoint, kind: str
) -> None:
    keys = [f"lora_{CROSS.replace('.', '_')}{suffix}" for suffix in UNSUPPORTED[kind]]
    assert {kind: sorted(names) for kind, names in _unmatched(path, sd15, *keys).items()} == {
        UnmatchedKind.UNSUPPORTED: sorted(keys)
    }


@pytest.mark.parametrize("suffix", ["alpha", "dora_scale"])
def test_an_alpha_without_any_other_key_is_an_error(path: Path, sd15: Checkpoint, suffix: str) -> None:
    orphan = f"lora_{CROSS.replace('.', '_')}.{suffix}"
    others = _zeros(f"{LAYER}.oft_blocks", orphan)
    with pytest.raises(LoraError, match=f"the file has {orphan} without the tensors that it scales"):
        read_lora(lora_files.write(path, pair(LAYER, 16, 16) | others), sd15.adaptable)


def test_keys_that_nothing_uses_leave_the_layers_as_they_are(tiny: Path, path: Path, sdxl: Checkpoint) -> None:
    lora = tiny / "loras/sdxl/kohya.safetensors"
    more = _zeros("bundle_emb.a.clip_l", "bundle_emb.a.clip_g", "stranger", "te3.x.alpha")
    found = read_lora(lora_files.write(path, load_file(lora) | more), sdxl.adaptable)
    alone = read_lora(lora, sdxl.adaptable)
    assert {layer.target: layer for layer in found.layers} == {layer.target: layer for layer in alone.layers}
    assert sum(map(len, found.unmatched.values())) == len(more)
    whole, part = _receipt(path, sdxl), _receipt(lora, sdxl)
    assert whole.unmatched == (
        UnmatchedGroup(kind=UnmatchedKind.EMBEDDING, count=2, names=("bundle_emb.a.clip_g", "bundle_emb.a.clip_l")),
        UnmatchedGroup(kind=UnmatchedKind.COMPONENT, count=1, names=("te3.x.alpha",)),
        UnmatchedGroup(kind=UnmatchedKind.LAYER, count=1, names=("stranger",)),
    )
    assert whole.tensors == whole.matched + len(more) == part.matched + len(more)
    assert (whole.groups, whole.layers) == (part.groups, part.layers)


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_the_receipt_counts_layers_by_rank_and_alpha(tiny: Path, request: pytest.FixtureRequest, model: str) -> None:
    lora = tiny / f"loras/{model}/kohya.safetensors"
    tensors = load_file(lora)
    downs = [tensor for name, tensor in tensors.items() if name.endswith(".lora_down.weight")]
    convolutions = sum(tensor.dim() == 4 for tensor in downs)
    receipt = _receipt(lora, request.getfixturevalue(model))
    linear = LoraLayerGroup(kind="LoRA", rank=4, alpha=3.0, multiplier=0.75, layers=len(downs) - convolutions)
    assert receipt.groups == (
        linear,
        LoraLayerGroup(kind="LoRA", rank=2, alpha=1.5, multiplier=0.75, layers=convolutions),
    )
    assert (receipt.tensors, receipt.matched, receipt.layers) == (len(tensors), len(tensors), len(downs))
    assert (receipt.unmatched, receipt.is_alpha_assumed) == ((), False)


def test_the_receipt_says_what_scales_each_kind(path: Path, sd15: Checkpoint) -> None:
    tensors = pair(LAYER, 16, 16) | {f"{LAYER}.dora_scale": torch.ones(16, 1), f"{LAYER}.alpha": torch.tensor(3)}
    tensors |= {f"{CONV}.diff": torch.zeros(16, 16, 3, 3), f"{CONV}.diff_b": torch.zeros(16)}
    tensors |= {f"{CROSS}.lokr_w1": torch.ones(4, 4), f"{CROSS}.lokr_w2": torch.ones(8, 8)}
    other = LAYER.replace("to_q", "to_k")
    tensors |= {f"{other}.{name}_a": torch.ones(16, 4) for name in ("hada_w1", "hada_w2")}
    tensors |= {f"{other}.{name}_b": torch.ones(4, 16) for name in ("hada_w1", "hada_w2")}
    found = {
        group.kind: (group.rank, group.alpha, group.multiplier, group.layers)
        for group in _receipt(lora_files.write(path, tensors), sd15).groups
    }
    assert found == {
        "DoRA over LoRA": (2, 3.0, 1.5, 1),
        "LoHa": (4, 4.0, 1.0, 1),
        "LoKr": (None, None, 1.0, 1),
        "full difference": (None, None, 1.0, 1),
        "difference of a bias": (None, None, 1.0, 1),
    }


@pytest.mark.parametrize(("config", "multiplier"), [({}, 1.5), ({"unet.use_rslora": True}, 3 / math.sqrt(2))])
def test_the_receipt_has_the_alpha_of_the_metadata(
    path: Path, sd15: Checkpoint, config: dict[str, object], multiplier: float
) -> None:
    lora_files.write(path, pair(LAYER, 16, 16), {"unet.lora_alpha": 3} | config)
    (group,) = _receipt(path, sd15).groups
    assert (group.rank, group.alpha, group.multiplier) == (2, 3.0, multiplier)


@pytest.mark.parametrize(
    ("prefix", "alpha", "assumed"),
    [("base_model.model.", None, True), ("base_model.model.", 1.0, False), ("", None, False)],
)
def test_peft_saves_no_alpha_in_the_file(
    path: Path, sd15: Checkpoint, prefix: str, alpha: float | None, assumed: bool
) -> None:
    tensors = pair(prefix + LAYER, 16, 16)
    if alpha is not None:
        tensors[f"{prefix}{LAYER}.alpha"] = torch.tensor(alpha)
    receipt = _receipt(lora_files.write(path, tensors), sd15)
    assert receipt.is_alpha_assumed == assumed
    assert receipt.groups[0].alpha == (2.0 if alpha is None else alpha)


def test_a_receipt_is_short(path: Path, sd15: Checkpoint) -> None:
    shapes = [(name.removesuffix(".weight"), shape) for name, shape in sd15.unet.shapes.items() if len(shape) == 2]
    assert len(shapes) > 40
    tensors = {f"{'x' * 1000}{number}": torch.zeros(1) for number in range(50)}
    for number, (module, (out, inputs)) in enumerate(shapes):
        tensors |= pair(f"unet.{module}", out, inputs, rank=2) | {f"unet.{module}.alpha": torch.tensor(number % 40)}
    receipt = _receipt(lora_files.write(path, tensors), sd15)
    assert len(receipt.groups) == 16
    assert receipt.layers == len(shapes) > sum(group.layers for group in receipt.groups)
    ((count, names),) = ((part.count, part.names) for part in receipt.unmatched)
    assert (count, len(names)) == (50, 8)
    assert len(receipt.model_dump_json()) < 4000
    assert LoraReceipt.model_validate_json(receipt.model_dump_json()) == receipt


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32),
        *(torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    ],
)
def test_an_alpha_of_any_dtype_is_read_without_torch(
    path: Path, sd15: Checkpoint, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    value = torch.tensor(5.3).to(dtype).reshape(shape)
    lora_files.write(path, pair(LAYER, 16, 16) | {f"{LAYER}.alpha": value})
    assert read_alphas(digest(path), read_lora(path, sd15.adaptable)) == {f"{LAYER}.alpha": float(value)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_an_alpha_that_is_not_finite_is_refused(path: Path, sd15: Checkpoint, value: float, dtype: torch.dtype) -> None:
    alpha = torch.tensor(value, dtype=torch.float64).to(dtype)
    lora_files.write(path, pair(LAYER, 16, 16) | {f"{LAYER}.alpha": alpha})
    with pytest.raises(LoraError, match=rf"{LAYER}\.alpha has a value that is not finite in float32"):
        read_alphas(digest(path), read_lora(path, sd15.adaptable))


@pytest.mark.parametrize("change", ["touched", "truncated", "removed"])
def test_a_file_that_changes_before_its_alphas_are_read_is_an_error(path: Path, sd15: Checkpoint, change: str) -> None:
    lora_files.write(path, pair(LAYER, 16, 16) | {f"{LAYER}.alpha": torch.tensor(1.0)})
    contents, stored = read_lora(path, sd15.adaptable), StoredFile(path, "", file_fingerprint(path))
    if change == "removed":
        path.unlink()
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:200])
        stored = StoredFile(path, "")
    else:
        os.utime(path, ns=(1, 1))
    with pytest.raises(FileChangedError):
        read_alphas(stored, contents)
