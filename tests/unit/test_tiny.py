"""The tiny checkpoints are the same everywhere, and like the genuine ones where it matters."""

from hashlib import sha256
from itertools import combinations
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from tests.tiny import tiny_folder, write_all

SD15_NETWORKS = ("sd15/unet", "sd15/vae", "sd15/text_encoder")
SDXL_NETWORKS = ("sdxl/unet", "sdxl/vae", "sdxl/text_encoder", "sdxl/text_encoder_2")
SD2_NETWORKS = ("sd2/unet", "sd2/vae", "sd2/text_encoder")
NETWORKS = (*SD15_NETWORKS, *SD2_NETWORKS, *SDXL_NETWORKS, "lcm/unet", "everything/unet")
PADS = (("sd15/tokenizer", -1), ("sd2/tokenizer", 0), ("sdxl/tokenizer", -1), ("sdxl/tokenizer_2", 0))
PROMPT = "A photo of an astronaut riding a zebra, highly detailed!"


@pytest.fixture(scope="module")
def tiny() -> Path:
    return tiny_folder()


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_bytes_each_time(tiny: Path, tmp_path: Path) -> None:
    write_all(tmp_path / "again")
    assert _digests(tmp_path / "again") == _digests(tiny)


def test_a_complete_folder_is_left_alone(tiny: Path) -> None:
    before = (tiny / "sd15" / "model_index.json").stat()
    write_all(tiny)
    assert (tiny / "sd15" / "model_index.json").stat() == before


@pytest.mark.parametrize("network", NETWORKS)
def test_no_tensor_is_constant_and_no_two_are_equal(tiny: Path, network: str) -> None:
    (file,) = (tiny / network).glob("*.safetensors")
    tensors = load_file(file)
    assert all(tensor.dtype == torch.float32 and tensor.min() < tensor.max() for tensor in tensors.values())
    assert not any(torch.equal(first, second) for first, second in combinations(tensors.values(), 2))


@pytest.mark.parametrize(("folder", "pad"), PADS)
def test_a_prompt_is_padded_as_by_clip(tiny: Path, folder: str, pad: int) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(tiny / folder)
    ids = tokenizer(PROMPT, padding="max_length").input_ids
    end = len(tokenizer) - 1
    used = ids.index(end) + 1
    assert ids[0] == end - 1
    assert len(PROMPT.split()) + 2 < used < len(ids) == 77
    assert set(ids[used:]) == {pad % len(tokenizer)}


def test_old_attention_names_hold_the_same_vae(tiny: Path) -> None:
    new = AutoencoderKL.from_pretrained(tiny / "sd15" / "vae").state_dict()
    old = AutoencoderKL.from_pretrained(tiny / "sd15-oldnames" / "vae").state_dict()
    assert all(torch.equal(new[name], old[name]) for name in new)
    names = load_file(tiny / "sd15-oldnames" / "vae" / "diffusion_pytorch_model.safetensors")
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in names


def test_the_unet_of_everything_takes_everything(tiny: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(tiny / "everything" / "unet")
    inputs = {"encoder_hidden_states": torch.randn(2, 77, 80), "timestep_cond": torch.randn(2, 12)}
    added = {"text_embeds": torch.randn(2, 40), "time_ids": torch.rand(2, 6) * 64}
    with torch.no_grad():
        noise = unet(torch.randn(2, 8, 8, 8), 500, added_cond_kwargs=added, **inputs).sample
    assert noise.shape == (2, 4, 8, 8)
    assert noise.isfinite().all()
