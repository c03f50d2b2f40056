"""The size of the prompts' embeddings, an upper bound."""

from __future__ import annotations

from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.plan import Plan
from runtime.prompts.chunk_bound import chunk_bound
from runtime.prompts.weighting import parse_weights

_FLOAT = 4
_CLIP_WIDTH = 512  # of a text encoder whose configuration has no width: transformers' default


def prompt_embeds_bytes(plan: Plan) -> int:
    """Of PROMPT_EMBEDS FP32 [branches, 77 for each chunk, D]: both prompts have as many chunks as the longer one."""
    width = sum(encoder.config.get("hidden_size", _CLIP_WIDTH) for encoder in plan.checkpoint.text_encoders)
    return int(_FLOAT * len(_prompts(plan)) * most_chunks(plan) * MAX_TOKENS * width)


def most_chunks(plan: Plan) -> int:
    """Chunks of the longer prompt, for a tokenizer that has CLIP's vocabulary."""
    if not plan.request.prompt_weighting:
        return 1
    return max(chunk_bound(parse_weights(prompt), _inverted(plan)) for prompt in _prompts(plan))


def _prompts(plan: Plan) -> list[str]:
    request = plan.request
    return [request.prompt, request.negative_prompt] if plan.guided else [request.prompt]


def _inverted(plan: Plan) -> list[tuple[str, int]]:
    """Each token of the embeddings, and how many vectors it stands for."""
    return [
        (token, embedding.vectors if len(embedding.tokens) == 1 else 1)
        for embedding in plan.embeddings
        for token in embedding.tokens
    ]
