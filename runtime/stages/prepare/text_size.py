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
    request = plan.request
    prompts = [request.prompt, request.negative_prompt] if plan.guided else [request.prompt]
    bounds = [chunk_bound(parse_weights(prompt), _inverted(plan)) for prompt in prompts if request.prompt_weighting]
    chunks = max(bounds, default=1)
    width = sum(encoder.config.get("hidden_size", _CLIP_WIDTH) for encoder in plan.checkpoint.text_encoders)
    return int(_FLOAT * len(prompts) * chunks * MAX_TOKENS * width)


def _inverted(plan: Plan) -> list[tuple[str, int]]:
    """Each token of the embeddings, and how many vectors it stands for."""
    return [
        (token, embedding.vectors if len(embedding.tokens) == 1 else 1)
        for embedding in plan.embeddings
        for token in embedding.tokens
    ]
