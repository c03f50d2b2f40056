"""Plans and calls, as Triton would bring them to a stage."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.jobs.job_table import SLOTS, JobRef, JobTable
from runtime.jobs.plan_files import PlanFiles
from runtime.lora.alphas import read_alphas
from runtime.lora.lora_file import read_lora
from runtime.lora.lora_receipt import make_lora_receipt
from runtime.plan import EmbeddingPlan, LoraPlan, PicturePlan, Plan
from runtime.stage_errors import StageError
from runtime.stages.call import Array, Call, Tensors
from runtime.stages.plan_stage import PlanStage
from runtime.stages.prepare import tiles
from runtime.stages.prepare.size import Size
from runtime.stages.report import Report
from runtime.stages.seal import with_seal
from tests.unit.runtime.tiny_checkpoints import digest


def make_plan(
    checkpoint: Checkpoint,
    job: JobRef | None = None,
    *,
    size: int = 64,
    height: int | None = None,
    priority: int = 2,
    loras: dict[Path, float] | None = None,
    vae_tile_above: int = 2048,
    embeddings: tuple[EmbeddingPlan, ...] = (),
    **fields: Any,
) -> Plan:
    """The plan of a request with these fields, for a picture of `size` x `height` pixels; square without `height`.

    With an `image_url` it has such an init image.
    """
    request = ImageToImageInput.model_validate({"model_name": "m", "prompt": "a bird", "seed": 5} | fields)
    job = job or JobRef(1, 0)
    height = height or size
    pixels = Size(size, height, -(-size // 8) * 8, -(-height // 8) * 8)
    return Plan(
        job_id=job.id,
        slot=job.slot,
        started=time.monotonic(),
        priority=priority,
        request=request,
        checkpoint=checkpoint,
        embeddings=embeddings,
        loras=tuple(
            _lora_plan(f"loras[{index}].path", path, scale, checkpoint)
            for index, (path, scale) in enumerate((loras or {}).items())
        ),
        seed=5,
        pictures=(PicturePlan(field="image_url", height=height, width=size, offset=0),) if request.image_url else (),
        width=size,
        height=height,
        padded_width=pixels.padded_width,
        padded_height=pixels.padded_height,
        files={},
        warnings=(),
        unet_tiles=tiles.resolve_unet(request, pixels, checkpoint),
        vae_tile=tiles.resolve_vae(request, pixels, checkpoint, vae_tile_above),
    )


def _lora_plan(field: str, path: Path, scale: float, checkpoint: Checkpoint) -> LoraPlan:
    stored, contents = digest(path), read_lora(path, checkpoint.adaptable)
    return LoraPlan(
        field=field,
        path=path,
        digest=stored.digest,
        scale=scale,
        components=frozenset(layer.target.component for layer in contents.layers),
        receipt=make_lora_receipt(contents, read_alphas(stored, contents)),
    )


class Answer:
    """What a stage sent: every answer, in the order of their coming."""

    def __init__(self, job_table: JobTable | None = None) -> None:
        self.job_table = job_table
        self.all: list[Tensors | StageError] = []
        self._came = threading.Event()

    def send(self, answer: Tensors | StageError) -> None:
        self.all.append(answer)
        self._came.set()

    @property
    def tensors(self) -> Tensors:
        answer = self._only()
        assert not isinstance(answer, StageError), answer
        return answer

    @property
    def plan(self) -> Plan:
        """The plan whose handle `prepare` answered."""
        assert self.job_table
        job = self.job_table.by_handle(self.tensors["PLAN"][0])
        assert job
        return Plan.model_validate_json(PlanFiles(self.job_table).read(job))

    @property
    def error(self) -> StageError:
        answer = self._only()
        assert isinstance(answer, StageError), answer
        return answer

    def wait(self) -> None:
        assert self._came.wait(30), "no answer came"

    def _only(self) -> Tensors | StageError:
        self.wait()
        assert len(self.all) == 1, "answered twice"
        return self.all[0]


def make_call(
    inputs: dict[str, Array], request_id: str = "", *, job_table: JobTable | None = None, **parameters: str | int | bool
) -> tuple[Call, Answer]:
    answer = Answer(job_table)
    return Call(inputs, answer.send, request_id, parameters), answer


def text_tensor(text: str | bytes) -> Array:
    """BYTES [1]."""
    return np.array([text.encode() if isinstance(text, str) else text], dtype=np.object_)


def handed_out(job_table: JobTable, stage: str, plan: Plan) -> tuple[Plan, Array]:
    """A plan and its handle as `prepare` hands them out; for a stage that has had it, the same plan of another job."""
    if plan.job not in job_table.live() or job_table.has_seen(plan.job, stage):
        job = job_table.open("", "", SLOTS)
        assert job
        plan = plan.model_copy(update={"job_id": job.id, "slot": job.slot})
    plans = PlanFiles(job_table)
    plans.remove([plan.job])
    plans.write(plan.job, plan.to_json())
    return plan, text_tensor(job_table.make_handle(plan.job))


def submit(
    stage: PlanStage,
    plan: Plan,
    inputs: dict[str, Array] | None = None,
    report: Report | None = None,
    **parameters: str,
) -> Answer:
    """Send a plan and tensors that an earlier stage has sealed."""
    job_table = stage.reporter.job_table
    plan, handle = handed_out(job_table, stage.reporter.stage, plan)
    sealed = with_seal(job_table.key, plan.job, report or Report(), inputs or {})
    call, answer = make_call({"PLAN": handle} | sealed, job_table=job_table, **parameters)
    stage.submit(call)
    return answer


def run_stage(
    stage: PlanStage,
    plan: Plan,
    inputs: dict[str, Array] | None = None,
    report: Report | None = None,
    **parameters: str,
) -> Answer:
    """The answer of a stage that is closed behind it."""
    answer = submit(stage, plan, inputs, report, **parameters)
    answer.wait()
    stage.close()
    return answer
