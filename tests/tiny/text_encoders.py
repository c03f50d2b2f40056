"""The CLIP text encoders: three layers, so that clip_skip 2 has a state to take."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.tiny.tokenizer import MAX_TOKENS, vocabulary
from tests.tiny.weights import fill

WIDTH = 32
WIDTH_2 = 48
WIDTH_H = 40
POOLED_2 = 40  # not WIDTH_2, so that taking the one for the other shows
# Untrained attention is nearly uniform: sharper queries and keys let words, not only the padding, be heard.
GAINS = {"token_embedding": 4.0, "q_proj.weight": 2.0, "k_proj.weight": 2.0}


def write_text_encoder(folder: Path, seed: int) -> None:
    """CLIP-L's part. Its keys get the prefix `text_model.` of every published checkpoint, which
    `CLIPTextModel` of transformers 5 accepts but no longer writes."""
    model = CLIPTextModel(_config(WIDTH, heads=4, hidden_act="quick_gelu", projection_dim=WIDTH))
    fill(model, seed, GAINS)
    _save(folder, model, prefix="text_model.")


def write_text_encoder_2(folder: Path, seed: int) -> None:
    """OpenCLIP-G's part in SDXL, with a projection for the pooled output."""
    model = CLIPTextModelWithProjection(_config(WIDTH_2, heads=6, hidden_act="gelu", projection_dim=POOLED_2))
    fill(model, seed, GAINS)
    _save(folder, model, prefix="")


def write_text_encoder_h(folder: Path, seed: int) -> None:
    """OpenCLIP-H's part in SD 2.x: the published folders hold all its layers but the last."""
    model = CLIPTextModel(_config(WIDTH_H, heads=5, hidden_act="gelu", projection_dim=WIDTH_H))
    fill(model, seed, GAINS)
    _save(folder, model, prefix="text_model.")


def _config(width: int, heads: int, **own: Any) -> CLIPTextConfig:
    # bos 0, pad 1, eos 2 is what the genuine files say, wrongly: with eos 2 CLIP pools at the highest id.
    return CLIPTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=heads,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        dtype="float32",
        **own,
    )


def _save(folder: Path, model: CLIPTextModel | CLIPTextModelWithProjection, prefix: str) -> None:
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tensors = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
