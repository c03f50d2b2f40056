"""Prompts that diffusers' pipelines do not encode by themselves: weighted ones, and textual inversions.

Weights are A1111's formula: each chunk of 75 tokens is encoded alone, its hidden states are multiplied by the weights
of their tokens, and scaled so that their mean is what it was. Chunks are concatenated.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.reference.request import Parts, ReferenceEmbedding, ReferenceRequest

CHUNK = 75
SUFFIXES = ("", "_2")  # of the names of SDXL's tokenizers and text encoders


def prompt_arguments(pipe: Any, request: ReferenceRequest) -> dict[str, Any]:
    """The arguments of a call that say what the prompts are."""
    if not request.parts:
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        return {**texts, "clip_skip": request.clip_skip or None}
    suffixes = _suffixes(pipe)
    chunks = [
        [_chunks(pipe, parts, suffix) for suffix in suffixes] for parts in (request.parts, request.negative_parts)
    ]
    count = max(len(found) for of_prompt in chunks for found in of_prompt)
    found: dict[str, Any] = {}
    for name, of_prompt, clip_skip in zip(("", "negative_"), chunks, (request.clip_skip, 0), strict=True):
        padded = ([*one, *[[]] * (count - len(one))] for one in of_prompt)
        encoded = [_encode(pipe, suffix, one, clip_skip) for suffix, one in zip(suffixes, padded, strict=True)]
        found[f"{name}prompt_embeds"] = torch.cat([states for states, _ in encoded], dim=-1)
        if len(suffixes) > 1:
            found[f"{name}pooled_prompt_embeds"] = encoded[-1][1]
    return found


def load_embeddings(pipe: Any, embeddings: tuple[ReferenceEmbedding, ...]) -> None:
    """Add textual inversions to the pipeline's tokenizers and text encoders, with diffusers' own loader."""
    for embedding in embeddings:
        for place, suffix in enumerate(_suffixes(pipe)):
            vectors = _vectors(embedding.path)[place].float()
            tokens = list(embedding.tokens)
            parts = [vectors] if len(tokens) == 1 else list(vectors)
            pipe.load_textual_inversion(
                [{token: part} for token, part in zip(tokens, parts, strict=True)],
                token=tokens,
                tokenizer=getattr(pipe, f"tokenizer{suffix}"),
                text_encoder=getattr(pipe, f"text_encoder{suffix}"),
            )


def _suffixes(pipe: Any) -> tuple[str, ...]:
    return SUFFIXES if hasattr(pipe, "text_encoder_2") else SUFFIXES[:1]


def _vectors(path: Path) -> list[torch.Tensor]:
    """Those for each text encoder."""
    content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    if "string_to_param" in content:
        return [content["string_to_param"]["*"]]
    return [
        content[key] for key in ("clip_l", "text_encoders_0", "clip_g", "text_encoders_1") if key in content
    ] or list(content.values())


def _chunks(pipe: Any, parts: Parts, suffix: str) -> list[list[tuple[int, float]]]:
    """(token id, weight) of each token, in chunks."""
    tokenizer = getattr(pipe, f"tokenizer{suffix}")
    chunks = []
    for part in parts:
        tokens = [
            (number, weight)
            for text, weight in part
            for number in tokenizer(pipe.maybe_convert_prompt(text, tokenizer), add_special_tokens=False).input_ids
        ]
        chunks += [tokens[begin : begin + CHUNK] for begin in range(0, max(len(tokens), 1), CHUNK)]
    return chunks


def _encode(
    pipe: Any, suffix: str, chunks: list[list[tuple[int, float]]], clip_skip: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states [1, T, D] of all chunks, and the pooled embedding [1, P] of the first."""
    tokenizer, encoder = getattr(pipe, f"tokenizer{suffix}"), getattr(pipe, f"text_encoder{suffix}")
    states, pooled = [], []
    for chunk in chunks:
        ids = [tokenizer.bos_token_id, *(number for number, _ in chunk), tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (CHUNK + 2 - len(ids))
        weights = torch.ones(CHUNK + 2)
        weights[1 : 1 + len(chunk)] = torch.tensor([weight for _, weight in chunk])
        outputs = encoder(torch.tensor([ids]), output_hidden_states=True)
        if hasattr(pipe, "text_encoder_2"):
            plain = outputs.hidden_states[-2 - clip_skip]
        else:
            plain = encoder.final_layer_norm(outputs.hidden_states[-1 - clip_skip])
        weighted = plain * weights[:, None]
        states.append(weighted * plain.mean() / weighted.mean())
        pooled.append(outputs[0])
    return torch.cat(states, dim=1), pooled[0]
