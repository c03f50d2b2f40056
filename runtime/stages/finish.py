"""`finish`: encodes the pictures and writes the response. No torch."""

from __future__ import annotations

import base64
import hashlib
import time

from lorikeet.protocol import parameters, tensors
from lorikeet.schema import Image, ImageToImageOutput
from runtime.files.image_codec import encode_image
from runtime.jobs.job_table import JobTable
from runtime.metrics.stage_definitions import REQUEST_SECONDS
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array, Call, bytes_tensor
from runtime.stages.receipt import make_receipt, published
from runtime.stages.worker_stage import WorkerStage


class FinishStage(WorkerStage):
    """PLAN, PIXELS UINT8 [N, H, W, 3], LATENTS, PER_PASS_LATENTS, REPORT -> the public outputs.

    With the request parameter `images=data_uri` the response contains the files as data URIs, for plain JSON over HTTP.
    """

    name = "finish"
    is_last = True

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table)
        self.metrics.declare(REQUEST_SECONDS)

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        begun = time.monotonic()
        receipt = make_receipt(plan, call.report)
        metadata = published(receipt, plan) if self.settings.metadata == "on" else ""
        encoded = [encode_image(pixels, plan.request.image_format, metadata) for pixels in call.inputs["PIXELS"]]
        total = time.monotonic() - plan.started
        call.report.timings |= {"finish": time.monotonic() - begun, "total": total}
        self.metrics.observe(REQUEST_SECONDS, total)
        inline = call.parameters.get(parameters.IMAGES) == parameters.DATA_URI
        latents = call.inputs["LATENTS"]
        response = ImageToImageOutput(
            images=[_image(plan, index, data, inline) for index, data in enumerate(encoded)],
            seed=plan.seed,
            has_nsfw_concepts=call.report.has_nsfw_concepts,
            warnings=[*plan.warnings, *call.report.warnings],
            timings=call.report.timings,
            receipt=receipt,
        )
        return {
            tensors.RESPONSE: bytes_tensor([response.to_json().encode()]),
            tensors.IMAGES: bytes_tensor(encoded),
            tensors.DEBUG_LATENTS: latents if plan.request.debug_latents else latents[:0],
            tensors.DEBUG_PER_PASS_LATENTS: call.inputs["PER_PASS_LATENTS"],
        }


def _image(plan: Plan, index: int, data: bytes, inline: bool) -> Image:
    kind = plan.request.image_format
    content_type = f"image/{kind}"
    return Image(
        url=f"data:{content_type};base64,{base64.b64encode(data).decode()}" if inline else "",
        content_type=content_type,
        file_name=f"{plan.job_id:016x}_{index}.{kind}",
        file_size=len(data),
        width=plan.width,
        height=plan.height,
        sha256=hashlib.sha256(data).hexdigest(),
    )
