"""`text_encoder`: prompts -> the embeddings that condition the UNet, as diffusers' `encode_prompt` makes them.

With `prompt_weighting`, as A1111 makes them: in chunks, each encoded alone, the tokens' weights applied.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.checkpoint import CheckpointKind, Component, Tokenizer
from runtime.checkpoints.clip_vocabulary import VOCABULARY_SIZE
from runtime.engines.ask import Bound
from runtime.engines.engine import Inputs, Outputs
from runtime.engines.select import Engines
from runtime.jobs.job_table import JobTable
from runtime.plan import Plan
from runtime.prompts.chunks import EMPTY, Chunk, first_chunk, split_chunks
from runtime.prompts.cut_prompt import cut_prompt
from runtime.prompts.emphasis import emphasize
from runtime.prompts.inverted_vectors import inverted_tokens, read_vectors
from runtime.prompts.prompt_tokenizer import PromptTokenizer, TokenizerError
from runtime.prompts.weighting import PromptError, parse_weights
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array, Call
from runtime.stages.text_size import most_chunks
from runtime.stages.watch_weights import watch_weights
from runtime.stages.worker_stage import WorkerStage

_SHOWN = 80  # characters of a prompt's cut end in a warning


class _Prompt(NamedTuple):
    """A prompt, the field that holds it, and how many of the last layers are skipped."""

    field: str
    text: str
    clip_skip: int


class _Encoder(NamedTuple):
    """A text encoder, its tokenizer, and its chunks of each prompt, as many for each."""

    component: Component
    tokenizer: PromptTokenizer
    chunks: Sequence[Sequence[Chunk]]


class TextEncoderStage(WorkerStage):
    """PLAN -> PROMPT_EMBEDS FP32 [branches, T, D] and POOLED_EMBEDS FP32 [branches, P] (P = 0 for SD 1.x and 2.x).

    T is 77 for each chunk of the longest prompt. The branches are the negative prompt and the prompt, or the prompt
    alone without guidance. SD takes the text encoder's last hidden states. SDXL takes both encoders' last but one,
    concatenated, and the second's projected pooled embedding of the first chunk. For the prompt, `clip_skip` counts
    that many layers further back.
    """

    name = "text_encoder"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self._engines = Engines(settings, "text_encoder")
        watch_weights(self.metrics, self._engines.weights)

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        prompts = _prompts(plan)
        encoders = _encoders(plan, prompts)
        hidden, pooled = [], torch.zeros(len(prompts), 0)
        for index, encoder in enumerate(encoders):
            states, projected = self._encode(plan, index, encoder, prompts, call)
            hidden.append(states)
            if plan.checkpoint.kind == "sdxl":
                pooled = projected
        if not plan.request.prompt_weighting:
            call.report.warnings += _cut_prompts(prompts, encoders)
        return {
            "PROMPT_EMBEDS": torch.cat(hidden, dim=-1).cpu().numpy(),
            "POOLED_EMBEDS": np.ascontiguousarray(pooled.cpu().numpy()),
        }

    def _encode(
        self, plan: Plan, index: int, encoder: _Encoder, prompts: Sequence[_Prompt], call: Call
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden states [prompts, T, D] and pooled embeddings [prompts, P], by the text encoder of this index."""
        begun = time.monotonic()
        vectors = read_vectors(plan.embeddings, index) if plan.embeddings else None
        bound = bind_component(
            self._engines, "text_encoder", plan, encoder.component, lambda: self.reporter.check(plan.job)
        )
        timings = call.report.timings
        timings["text_encoder_load"] = timings.get("text_encoder_load", 0.0) + time.monotonic() - begun
        try:
            states, pooled = [], []
            for prompt, chunks in zip(prompts, encoder.chunks, strict=True):
                rows = [_inputs(encoder.tokenizer, chunk, vectors) for chunk in chunks]
                found = [self._run(plan, bound, prompt, *pair) for pair in zip(chunks, rows, strict=True)]
                states.append(torch.cat([of_chunk for of_chunk, _ in found]))
                pooled.append(found[0][1])
            return torch.stack(states), torch.stack(pooled)
        finally:
            bound.release()

    def _run(
        self, plan: Plan, bound: Bound, prompt: _Prompt, chunk: Chunk, inputs: Inputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted hidden states [77, D] and the pooled embedding [P] of a chunk."""
        self.reporter.check(plan.job)
        outputs = bound.engine.run([(bound.binding, inputs)])[0]
        assert isinstance(outputs["pooled"], torch.Tensor)
        return _states(outputs, plan.checkpoint.kind, prompt, chunk), outputs["pooled"]


def _prompts(plan: Plan) -> list[_Prompt]:
    """One for each branch. As in diffusers, clip_skip does not apply to the negative prompt."""
    prompt = _Prompt("prompt", plan.request.prompt, plan.request.clip_skip)
    return [_Prompt("negative_prompt", plan.request.negative_prompt, 0), prompt] if plan.guided else [prompt]


def _encoders(plan: Plan, prompts: Sequence[_Prompt]) -> list[_Encoder]:
    """The text encoders. Prompts with fewer chunks get chunks of the empty prompt. Raises InvalidArgument."""
    components, weighting = plan.checkpoint.text_encoders, plan.request.prompt_weighting
    try:
        tokenizers = [
            _tokenizer(plan, files, component)
            for files, component in zip(plan.checkpoint.tokenizers, components, strict=True)
        ]
        chunks = [[_chunks(tokenizer, prompt, weighting) for prompt in prompts] for tokenizer in tokenizers]
    except TokenizerError as error:
        raise InvalidArgument("model_name", str(error)) from error
    if len({tokenizer.limit for tokenizer in tokenizers}) > 1:
        raise InvalidArgument("model_name", "its tokenizers have different values of model_max_length: expected one")
    count = max(len(found) for of_encoder in chunks for found in of_encoder)
    if count > (most := most_chunks(plan)):  # memory was reserved for no more
        raise InvalidArgument("model_name", f"its tokenizer makes {count} chunks of a prompt that has at most {most}")
    padded = [[[*found, *[EMPTY] * (count - len(found))] for found in of_encoder] for of_encoder in chunks]
    return list(map(_Encoder, components, tokenizers, padded))


def _tokenizer(plan: Plan, files: Tokenizer, component: Component) -> PromptTokenizer:
    vocabulary = component.config.get("vocab_size", VOCABULARY_SIZE)
    return PromptTokenizer(files, inverted_tokens(plan.embeddings, vocabulary), vocabulary)


def _chunks(tokenizer: PromptTokenizer, prompt: _Prompt, weighting: bool) -> list[Chunk]:
    """Raises TokenizerError, and InvalidArgument that names the prompt's field."""
    if not weighting:
        return [first_chunk(tokenizer.tokenize(prompt.text), tokenizer.limit)]
    try:
        parts = parse_weights(prompt.text)
        tokens = [[(tokenizer.tokenize(text), weight) for text, weight in part] for part in parts]
        return split_chunks(tokens, tokenizer.limit)
    except PromptError as error:
        raise InvalidArgument(prompt.field, str(error)) from error


def _inputs(tokenizer: PromptTokenizer, chunk: Chunk, vectors: torch.Tensor | None) -> Inputs:
    """The row of a chunk. It has vectors only if it needs them: other embeddings do not change its bytes."""
    ids = torch.tensor(tokenizer.row(chunk.ids))
    return {"ids": ids, "vectors": vectors} if max(chunk.ids, default=0) >= tokenizer.vocabulary else {"ids": ids}


def _states(outputs: Outputs, kind: CheckpointKind, prompt: _Prompt, chunk: Chunk) -> torch.Tensor:
    """The weighted hidden states [77, D] that condition the UNet; SD's pass the final norm whichever layer they are of.

    Raises InvalidArgument that names the prompt's field.
    """
    layers = outputs["hidden_states"] if kind == "sdxl" else outputs["normed_states"]
    first = 2 if kind == "sdxl" else 1
    try:
        return emphasize(layers[-first - prompt.clip_skip], chunk.weights)
    except PromptError as error:
        raise InvalidArgument(prompt.field, str(error)) from error


def _cut_prompts(prompts: Sequence[_Prompt], encoders: Sequence[_Encoder]) -> list[str]:
    """A warning for each prompt that has more tokens than a text encoder reads, the prompt first."""
    found = []
    for prompt in reversed(prompts):
        cuts = (cut_prompt(encoder.tokenizer, prompt.text) for encoder in encoders)
        if longest := max((cut for cut in cuts if cut), key=lambda cut: cut.tokens, default=None):
            found.append(
                f"{prompt.field}: the text encoder reads {longest.limit} tokens; the last {longest.tokens} are "
                f"ignored: {shorten(longest.text.strip(), _SHOWN)!r}"
            )
    return found
