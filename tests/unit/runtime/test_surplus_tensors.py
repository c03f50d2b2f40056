"""Checkpoints with tensors that no network has, or with one under two names: read as by A1111 and ComfyUI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_checkpoint import read_checkpoint, with_unet
from runtime.checkpoints.unread_tensors import warn_of_unread_tensors
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.files.located import Folder, SingleFile
from runtime.networks.architecture import NetworkKind
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_engine
from tests.unit.runtime.tiny_checkpoints import base_tensors, digest

Tensors = dict[str, torch.Tensor]
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
NO_NETWORK = "which no network of Stable Diffusion has"


def _ones(*names: str, dtype: torch.dtype = torch.float32) -> Tensors:
    return {name: torch.ones(2, dtype=dtype) for name in names}


def _change(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = change(load_file(path))
    path.unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _single(folder: Path, name: str = "sd15") -> Checkpoint:
    return read_checkpoint(SingleFile(digest(folder / f"single/{name}.safetensors"), folder), digest)


def _warnings(checkpoint: Checkpoint) -> list[str]:
    return warn_of_unread_tensors(checkpoint.components)


def _same(found: Checkpoint, expected: Checkpoint) -> None:
    """Equal configurations and weights; the engine, which accepts no tensor that it does not use, takes them."""
    kinds: dict[str, tuple[NetworkKind, ...]] = {"unet": ("unet",), "vae": ("vae_encoder", "vae_decoder")}
    for mine, theirs in zip(found.components, expected.components, strict=True):
        assert mine.config == theirs.config
        one, other = base_tensors(mine), base_tensors(theirs)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in other)
        for kind in kinds.get(mine.role, ("text_encoder",)):
            make_engine(kind, mine)[0].bind(WeightSet(mine), never_cancelled).release()


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl", "sd15-diffusers"])
def test_what_published_files_hold_is_no_surplus(tiny: Path, name: str) -> None:
    assert _warnings(_single(tiny, name)) == []


@pytest.mark.parametrize(
    ("name", "surplus"),
    [
        ("sd15", _ones("zz_owner")),
        ("sd15", _ones(f"{UNET}zz_owner", dtype=torch.int8)),
        ("sd15", _ones("input_blocks.0.0.weight", "conv_in.weight", "unet.conv_in.weight")),
        ("sd15-diffusers", _ones("input_blocks.0.0.weight", "conv_in.weight")),
        ("sd15", _ones(f"{UNET}input_blocks.1.0.in_layers.9.weight", f"{UNET}control.weight")),
        ("sd15", _ones(f"{UNET}input_blocks.1.1.transformer_blocks.0.fuser.norm1.weight", f"{UNET}position_net.x")),
        ("sd15", _ones(f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.bias")),
        ("sd15", _ones(f"{UNET}input_blocks.01.0.in_layers.2.weight")),
        ("sd15", _ones(f"{VAE}zz_owner", f"{VAE}decoder.mid.attn_2.q.weight", f"{VAE}loss.logvar")),
        ("sd15", _ones(f"{CLIP}zz_owner", f"{CLIP}text_model.zz_owner", f"{CLIP}adapter.weight")),
        ("sd15", _ones(f"{CLIP}text_projection.weight", f"{CLIP}logit_scale", f"{CLIP}vision_model.x.bias")),
        ("sd15", _ones("embedding_manager.embedder.x", "cond_stage_model.logit_scale", "denoiser.sigmas")),
        ("sd15", _ones(f"{CLIP}text_model.embeddings.position_ids", dtype=torch.float16)),
        ("sd15", _ones(f"{CLIP_XL}text_model.embeddings.token_embedding.weight")),
        ("sd15", _ones(f"{UNET}{'x' * 100_000}")),
        (
            "sd2",
            _ones("cond_stage_model.model.visual.proj", "cond_stage_model.model.transformer.resblocks.0.ln_3.bias"),
        ),
        ("sdxl", _ones(f"{OPEN_CLIP_XL}transformer.resblocks.0.ln_3.bias", "denoiser.sigmas")),
        ("sdxl", _ones(f"{CLIP_XL}text_projection.weight", "conditioner.embedders.0.logit_scale")),
        ("sdxl", _ones(f"{CLIP}text_model.embeddings.token_embedding.weight")),
        ("sd15-diffusers", _ones("unet.zz_owner", "vae.zz_owner", "text_encoder.zz_owner", "text_encoder_2.x", "zz")),
    ],
)
def test_surplus_tensors_of_a_file_are_ignored_with_a_warning(
    tiny_copy: Path, tiny: Path, name: str, surplus: Tensors
) -> None:
    _change(tiny_copy / f"single/{name}.safetensors", lambda all_: all_ | surplus)
    found = _single(tiny_copy, name)
    _same(found, _single(tiny, name))
    (warning,) = _warnings(found)
    start = f"model_name: ignored {len(surplus)} tensor{'s' if len(surplus) > 1 else ''}, {NO_NETWORK}: "
    assert warning.startswith(start)
    assert all(key[:90] in warning for key in surplus)
    assert len(warning) < 600


@pytest.mark.parametrize(
    ("file", "surplus"),
    [
        ("unet/diffusion_pytorch_model", _ones("zz_owner")),
        ("unet/diffusion_pytorch_model", _ones("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.bias")),
        ("vae/diffusion_pytorch_model", _ones("zz_owner", "loss.logvar", dtype=torch.int64)),
        ("text_encoder/model", _ones("logit_scale", "text_projection.weight", "vision_model.x")),
        ("text_encoder/model", _ones("text_model.embeddings.position_ids", dtype=torch.float16)),
    ],
)
def test_surplus_tensors_of_a_folder_are_ignored_with_a_warning(
    tiny_copy: Path, tiny: Path, file: str, surplus: Tensors
) -> None:
    _change(tiny_copy / f"sd15/{file}.safetensors", lambda all_: all_ | surplus)
    found = read_checkpoint(Folder(tiny_copy / "sd15", tiny_copy), digest)
    _same(found, read_checkpoint(Folder(tiny / "sd15", tiny), digest))
    (warning,) = _warnings(found)
    component = file.partition("/")[0]
    assert warning.startswith(f"model_name: {component}: ignored {len(surplus)} tensor")
    assert all(name in warning for name in surplus)


def test_surplus_tensors_of_a_unet_alone_name_its_field(tiny: Path, tmp_path: Path, sd15: Checkpoint) -> None:
    tensors = load_file(tiny / "lcm/unet/diffusion_pytorch_model.safetensors")
    save_file(tensors | _ones("zz_owner"), tmp_path / "unet.safetensors")
    unet = with_unet(sd15, SingleFile(digest(tmp_path / "unet.safetensors")), digest).unet
    assert base_tensors(unet).keys() == tensors.keys()
    named = unet.model_copy(update={"field": "unet_name"})
    assert warn_of_unread_tensors([named]) == [f"unet_name: unet: ignored 1 tensor, {NO_NETWORK}: zz_owner"]


def test_a_copy_of_the_moving_average_is_ignored_with_a_warning(tiny_copy: Path, tiny: Path) -> None:
    def average(all_: Tensors) -> Tensors:
        names = [name for name in all_ if name.startswith(UNET)]
        return all_ | {"model_ema." + name.removeprefix("model.").replace(".", ""): all_[name] / 2 for name in names}

    _change(tiny_copy / "single/sd15.safetensors", average)
    found = _single(tiny_copy)
    _same(found, _single(tiny))
    (warning,) = _warnings(found)
    assert warning.startswith("model_name: ignored ") and "tensors, a moving average of the weights (EMA): " in warning
    assert "and " in warning and len(warning) < 1200


def _doubled(prefix: str, old: str, new: str) -> Callable[[Tensors], Tensors]:
    """Adds each tensor below `prefix`, halved, with `new` in place of `old` in its name."""

    def change(all_: Tensors) -> Tensors:
        names = [name for name in all_ if name.startswith(prefix) and old in name and all_[name].is_floating_point()]
        return all_ | {name.replace(old, new): all_[name] / 2 for name in names}

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sd15", _doubled(CLIP, "text_model.", "")),
        ("sdxl", _doubled(CLIP_XL, "text_model.", "")),
        ("sd15", _doubled(f"{VAE}decoder.mid.attn_1", ".q.", ".to_q.")),
        ("sd15", _doubled(f"{VAE}encoder.mid.attn_1", ".proj_out.", ".to_out.0.")),
        ("sdxl", lambda all_: all_ | {f"{OPEN_CLIP_XL}text_projection.weight": torch.zeros(40, 48)}),
    ],
)
def test_of_a_tensor_under_two_names_that_of_the_program_is_read(
    tiny_copy: Path, tiny: Path, name: str, change: Callable[[Tensors], Tensors]
) -> None:
    before = len(load_file(tiny / f"single/{name}.safetensors"))
    path = tiny_copy / f"single/{name}.safetensors"
    _change(path, change)
    found = _single(tiny_copy, name)
    _same(found, _single(tiny, name))
    added = len(load_file(path)) - before
    (warning,) = _warnings(found)
    assert warning.startswith(f"model_name: ignored {added} tensor")
    assert "which repeat others under a second name: " in warning


def test_of_a_folders_tensor_under_two_names_the_full_one_is_read(tiny_copy: Path, tiny: Path) -> None:
    def both(all_: Tensors) -> Tensors:
        full = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in all_.items()}
        return full | {name.removeprefix("text_model."): tensor / 2 for name, tensor in full.items()}

    _change(tiny_copy / "sd15/text_encoder/model.safetensors", both)
    found = read_checkpoint(Folder(tiny_copy / "sd15", tiny_copy), digest)
    _same(found, read_checkpoint(Folder(tiny / "sd15", tiny), digest))
    assert "which repeat others under a second name" in _warnings(found)[0]


LATER = [
    {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"},
    {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"},
    {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"},
]


@pytest.mark.parametrize("names", LATER)
@pytest.mark.parametrize("is_matrix", [True, False])
def test_the_vaes_attention_may_have_later_names(
    tiny_copy: Path, tiny: Path, names: dict[str, str], is_matrix: bool
) -> None:
    def renamed(all_: Tensors) -> Tensors:
        found = {}
        for name, tensor in all_.items():
            stem, _, kind = name.rpartition(".")
            place, _, part = stem.rpartition(".")
            is_attention = place.endswith(".mid.attn_1")
            new = f"{place}.{names.get(part, part)}.{kind}" if is_attention else name
            found[new] = tensor.flatten(1) if is_attention and is_matrix and tensor.dim() == 4 else tensor
        return found

    _change(tiny_copy / "single/sd15.safetensors", renamed)
    found = _single(tiny_copy)
    _same(found, _single(tiny))
    assert _warnings(found) == []


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("sd15", f"{UNET}input_blocks.1.0.in_layers.0.bias"),
        ("sd15", f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"),
        ("sd15", f"{UNET}middle_block.0.emb_layers.1.bias"),
        ("sd15", f"{VAE}decoder.mid.attn_1.q.weight"),
        ("sd15", f"{CLIP}text_model.final_layer_norm.bias"),
        ("sdxl", f"{OPEN_CLIP_XL}transformer.resblocks.0.ln_1.bias"),
    ],
)
def test_a_needed_tensor_under_a_strange_name_is_missing(tiny_copy: Path, name: str, lost: str) -> None:
    """A surplus tensor hides no hole: the reader or the engine refuses the rest."""
    _change(
        tiny_copy / f"single/{name}.safetensors",
        lambda all_: {f"{key}_x" if key == lost else key: tensor for key, tensor in all_.items()},
    )
    with pytest.raises((CheckpointError, WeightsError), match=r"lacks|incomplete|missing"):
        _same(_single(tiny_copy, name), _single(tiny_copy, name))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_needed_tensor_of_another_dtype_is_refused(tiny_copy: Path, dtype: torch.dtype) -> None:
    key = f"{UNET}out.2.weight"
    _change(tiny_copy / "single/sd15.safetensors", lambda all_: all_ | {key: all_[key].to(dtype)})
    with pytest.raises(CheckpointError, match="has dtype"):
        _single(tiny_copy)
