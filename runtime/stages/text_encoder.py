"""`text_encoder`: prompts -> the embeddings that condition the UNet, as diffusers' `encode_prompt` makes them."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
import torch
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from runtime.checkpoints.checkpoint import MAX_TOKENS, Kind, Tokenizer
from runtime.checkpoints.clip_vocabulary import clip_vocabulary
from runtime.engines.engine import Outputs
from runtime.engines.select import Engines
from runtime.jobs.job_table import JobTable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Array, Call
from runtime.stages.stage import WorkerStage
from runtime.stages.weight_sets import bind

_CLIP_VOCABULARY = 49408


class TextEncoderStage(WorkerStage):
    """PLAN -> PROMPT_EMBEDS FP32 [rows, 77, D] and POOLED_EMBEDS FP32 [rows, P] (P = 0 for SD 1.x).

    rows: the negative prompt and the prompt, or the prompt alone without guidance. SD takes the text encoder's last
    hidden state; SDXL both encoders' last but one, side by side, and the second's projected pooled embedding. For the
    prompt, `clip_skip` counts as many layers further back.
    """

    name = "text_encoder"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self._engines = Engines(settings, "text_encoder")

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        prompts = [plan.request.negative_prompt, plan.request.prompt] if plan.guided else [plan.request.prompt]
        hidden, pooled = [], torch.zeros(len(prompts), 0)
        for index in range(len(plan.checkpoint.text_encoders)):
            found = self._encode(plan, index, prompts, call)
            hidden.append(torch.cat([states for states, _ in found]))
            if plan.checkpoint.kind == "sdxl":
                pooled = torch.cat([pooled for _, pooled in found])
        return {
            "PROMPT_EMBEDS": torch.cat(hidden, dim=-1).cpu().numpy(),
            "POOLED_EMBEDS": np.ascontiguousarray(pooled.cpu().numpy()),
        }

    def _encode(
        self, plan: Plan, index: int, prompts: list[str], call: Call
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each prompt's hidden states [1, 77, D] and pooled embedding [1, P], by one of the text encoders."""
        component = plan.checkpoint.text_encoders[index]
        begun = time.monotonic()
        engine, binding = bind(self._engines, "text_encoder", plan, component, lambda: self.reporter.check(plan.job))
        call.timings["text_encoder_load"] = call.timings.get("text_encoder_load", 0.0) + time.monotonic() - begun
        try:
            found = []
            for row, prompt in enumerate(prompts, 1):
                ids = _ids(plan.checkpoint.tokenizers[index], prompt)
                if ids.max() >= component.config.get("vocab_size", _CLIP_VOCABULARY):
                    raise InvalidArgument("model_name", f"its {component.name} lacks tokens that its tokenizer has")
                outputs = engine.run(binding, {"ids": ids})
                # As in diffusers, the negative prompt skips none.
                clip_skip = plan.request.clip_skip if row == len(prompts) else 0
                states = _states(outputs, plan.checkpoint.kind, clip_skip)
                pooled = outputs["pooled"]
                assert isinstance(pooled, torch.Tensor)
                found.append((states, pooled))
            return found
        finally:
            binding.release()


def _states(outputs: Outputs, kind: Kind, clip_skip: int) -> torch.Tensor:
    """The hidden states [1, 77, D] that condition the UNet; SD's pass the final norm whichever layer they are of."""
    layers = outputs["hidden_states"] if kind == "sdxl" else outputs["normed_states"]
    first = 2 if kind == "sdxl" else 1
    return layers[-first - clip_skip]


def _ids(files: Tokenizer, prompt: str) -> torch.Tensor:
    """Token ids [1, 77] int64, padded or cut to the tokenizer's length."""
    try:
        tokenizer = _tokenizer(files)
        ids = tokenizer(
            prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
    except Exception as error:  # whatever a damaged vocabulary makes the library raise
        raise InvalidArgument("model_name", f"its tokenizer cannot be used ({type(error).__name__})") from error
    assert isinstance(ids, torch.Tensor)
    return ids


@lru_cache(maxsize=16)
def _tokenizer(files: Tokenizer) -> CLIPTokenizer:
    if files.folder is None:
        vocabulary, merges = clip_vocabulary()
        tokenizer = CLIPTokenizer(vocabulary, merges, pad_token=files.pad_token)
    else:
        tokenizer = CLIPTokenizer.from_pretrained(files.folder, local_files_only=True)
    # A tokenizer without a length says 1e30.
    tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS)
    if tokenizer.model_max_length < 1:
        raise ValueError("no prompt is so short")
    return tokenizer
