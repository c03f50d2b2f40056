"""`text_encoder`: prompts -> the embeddings that condition the UNet, as diffusers' `encode_prompt` makes them."""

from __future__ import annotations

import time

import numpy as np
import torch

from lorikeet.protocol.shorten import shorten
from runtime.checkpoints.checkpoint import CheckpointKind, Component
from runtime.checkpoints.clip_vocabulary import VOCABULARY_SIZE
from runtime.engines.ask import Bound
from runtime.engines.engine import Outputs
from runtime.engines.select import Engines
from runtime.jobs.job_table import JobTable
from runtime.plan import Plan
from runtime.prompts.clip_tokenizer import TokenizerError, token_ids
from runtime.prompts.cut_prompt import cut_prompt
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array, Call
from runtime.stages.watch_weights import watch_weights
from runtime.stages.worker_stage import WorkerStage

_SHOWN = 80  # characters of a prompt's cut end in a warning


class TextEncoderStage(WorkerStage):
    """PLAN -> PROMPT_EMBEDS FP32 [branches, 77, D] and POOLED_EMBEDS FP32 [branches, P] (P = 0 for SD 1.x and 2.x).

    The branches are the negative prompt and the prompt, or the prompt alone without guidance. SD takes the text
    encoder's last hidden states. SDXL takes both encoders' last but one, concatenated, and the second's projected
    pooled embedding. For the prompt, `clip_skip` counts that many layers further back.
    """

    name = "text_encoder"

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self._engines = Engines(settings, "text_encoder")
        watch_weights(self.metrics, self._engines.weights)

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        prompts = [plan.request.negative_prompt, plan.request.prompt] if plan.guided else [plan.request.prompt]
        hidden, pooled = [], torch.zeros(len(prompts), 0)
        for index in range(len(plan.checkpoint.text_encoders)):
            states, projected = self._encode(plan, index, prompts, call)
            hidden.append(states)
            if plan.checkpoint.kind == "sdxl":
                pooled = projected
        call.report.warnings += _cut_prompts(plan)
        return {
            "PROMPT_EMBEDS": torch.cat(hidden, dim=-1).cpu().numpy(),
            "POOLED_EMBEDS": np.ascontiguousarray(pooled.cpu().numpy()),
        }

    def _encode(self, plan: Plan, index: int, prompts: list[str], call: Call) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden states [prompts, 77, D] and pooled embeddings [prompts, P], by one of the text encoders."""
        component = plan.checkpoint.text_encoders[index]
        begun = time.monotonic()
        bound = bind_component(self._engines, "text_encoder", plan, component, lambda: self.reporter.check(plan.job))
        timings = call.report.timings
        timings["text_encoder_load"] = timings.get("text_encoder_load", 0.0) + time.monotonic() - begun
        try:
            states, pooled = [], []
            for number, prompt in enumerate(prompts, 1):
                outputs = _run(bound, _ids(plan, index, component, prompt))
                # As in diffusers, clip_skip does not apply to the negative prompt.
                clip_skip = plan.request.clip_skip if number == len(prompts) else 0
                states.append(_states(outputs, plan.checkpoint.kind, clip_skip))
                assert isinstance(outputs["pooled"], torch.Tensor)
                pooled.append(outputs["pooled"])
            return torch.stack(states), torch.stack(pooled)
        finally:
            bound.release()


def _run(bound: Bound, ids: torch.Tensor) -> Outputs:
    return bound.engine.run([(bound.binding, {"ids": ids})])[0]


def _ids(plan: Plan, index: int, component: Component, prompt: str) -> torch.Tensor:
    """Token ids [77]. Raises InvalidArgument."""
    try:
        ids = token_ids(plan.checkpoint.tokenizers[index], prompt)
    except TokenizerError as error:
        raise InvalidArgument("model_name", str(error)) from error
    if ids.max() >= component.config.get("vocab_size", VOCABULARY_SIZE):
        raise InvalidArgument("model_name", f"its {component.name} lacks tokens that its tokenizer has")
    return ids


def _cut_prompts(plan: Plan) -> list[str]:
    """A warning for each prompt that has more tokens than a text encoder reads."""
    fields = {"prompt": plan.request.prompt} | (
        {"negative_prompt": plan.request.negative_prompt} if plan.guided else {}
    )
    found = []
    for field, prompt in fields.items():
        cuts = (cut_prompt(tokenizer, prompt) for tokenizer in plan.checkpoint.tokenizers)
        if longest := max((cut for cut in cuts if cut), key=lambda cut: cut.tokens, default=None):
            found.append(
                f"{field}: the text encoder reads {longest.limit} tokens; the last {longest.tokens} are ignored: "
                f"{shorten(longest.text.strip(), _SHOWN)!r}"
            )
    return found


def _states(outputs: Outputs, kind: CheckpointKind, clip_skip: int) -> torch.Tensor:
    """The hidden states [77, D] that condition the UNet; SD's pass the final norm whichever layer they are of."""
    layers = outputs["hidden_states"] if kind == "sdxl" else outputs["normed_states"]
    first = 2 if kind == "sdxl" else 1
    return layers[-first - clip_skip]
