"""Speed on the GPU: the loop against bare forward passes, requests against diffusers, and LoRAs."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.models import GpuModels
from benchmarks.gpu.parity import CUDA, BoundUnet
from benchmarks.gpu.peer import GpuPeer, PeerForm, seconds_a_call
from benchmarks.gpu.rows import Rows, batched
from benchmarks.gpu.stage_chain import StageChain
from benchmarks.unique_requests import UniqueRequests
from lorikeet.protocol.tensors import IMAGES, RESPONSE
from runtime.settings import Settings
from runtime.stages.call import Tensors
from runtime.weights.weight_set import WeightSet


class Speed:
    """The measures of one checkpoint at one size."""

    def __init__(self, models: GpuModels, name: str, pixels: int, folder: Path) -> None:
        self._models, self._name, self._pixels, self._folder = models, name, pixels, folder
        self._requests = UniqueRequests()

    def chain(self, block_rows: int = 0) -> StageChain:
        """The stages with these block rows. Their weights have a budget that holds ten sets."""
        folder = self._folder / f"{self._name}-{block_rows}-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        settings = Settings(
            store=folder / "store",
            local_paths=(self._models.folder,),
            weights_bytes=60 << 30,
            block_rows=block_rows,
            max_running=16,
        )
        return StageChain(settings, folder)

    def bare(self, form: PeerForm, calls: int) -> float:
        """Seconds of a UNet call of two rows in diffusers."""
        rows = Rows(self._models.checkpoint(self._name), self._pixels, CUDA, seed=5)
        return GpuPeer(self._models.path(self._name), form).bare(batched([rows.plain(), rows.plain()]), calls)

    def our_bare(self, calls: int) -> float:
        """Seconds of a UNet call of two rows in our engine."""
        checkpoint = self._models.checkpoint(self._name)
        rows = Rows(checkpoint, self._pixels, CUDA, seed=5)
        row, other = rows.plain(), rows.plain()
        unet = BoundUnet(WeightSet(checkpoint.unet), torch.float16)
        return seconds_a_call(lambda: unet.run(row, other), calls)

    def loop(self, chain: StageChain, steps: int, bare: float, rounds: int) -> dict[str, float]:
        """How near the step loop comes to the bare calls: the time of one call over that of one step of a job."""
        short, long = self._denoiser(chain, steps, rounds), self._denoiser(chain, 3 * steps, rounds)
        step = (long - short) / (2 * steps)
        return {"seconds a step": step, "bare over loop": bare / step, "seconds of a job besides": short - steps * step}

    def _denoiser(self, chain: StageChain, steps: int, rounds: int) -> float:
        """Seconds of the denoiser for a request, from the call to the answer."""
        seconds = []
        for _ in range(rounds + 2):
            self.request(chain, steps)
            seconds.append(chain.seconds["denoiser"])
        return median(seconds[2:])

    def pairs(self, chain: StageChain, form: PeerForm, steps: int, rounds: int) -> dict[str, Any]:
        """Requests and diffusers' in turn, each with a new seed, prompt and picture: the same for both."""
        peer = GpuPeer(self._models.path(self._name), form)
        ours, theirs = [], []
        for _ in range(rounds + 2):
            request = self._requests.next(self._pixels)
            fields = {key: value for key, value in request.fields.items() if key != "image_url"}
            begun = time.perf_counter()
            answer = chain.run(self._fields(steps) | fields, request.image)
            ours.append(time.perf_counter() - begun)
            theirs.append(peer.generate(request, steps)[0])
        ours, theirs = ours[2:], theirs[2:]
        return {
            "ours": median(ours),
            "diffusers": median(theirs),
            "ours over diffusers": median(ours) / median(theirs),
            "stages": json.loads(answer[RESPONSE][0])["timings"],
            "samples": [ours, theirs],
        }

    def pictures(self, chain: StageChain, steps: int) -> dict[str, float]:
        """How near pictures in float16 come to diffusers' in float32, PSNR in dB: ours, and diffusers'.

        One request; random weights amplify every rounding over the steps.
        """
        request = self._requests.next(self._pixels)
        fields = {key: value for key, value in request.fields.items() if key != "image_url"}
        ours = _picture(chain.run(self._fields(steps) | fields, request.image))
        path = self._models.path(self._name)
        half = GpuPeer(path, "eager").generate(request, steps)[1]
        exact = GpuPeer(path, "float32").generate(request, steps)[1]
        return {"ours": _psnr(ours, exact), "diffusers": _psnr(half, exact), "ours and diffusers": _psnr(ours, half)}

    def loras(self, chain: StageChain, steps: int, count: int) -> dict[str, float]:
        """Requests with LoRAs: one at a time, all at once with different ones, all at once with the same."""
        lora = [{"path": str(self._models.lora(self._name, number)), "scale": 1.0} for number in range(count)]
        first = [self.request(chain, steps, loras=[item])["timings"]["denoiser_load"] for item in lora]
        again = [self.request(chain, steps, loras=[item])["timings"]["denoiser_load"] for item in lora]
        serial = _timed(lambda: [self.request(chain, steps, loras=[item]) for item in lora])
        different = _timed(lambda: self.together(chain, steps, [{"loras": [item]} for item in lora]))
        same = _timed(lambda: self.together(chain, steps, [{"loras": [lora[0]]}] * count))
        return {
            "a LoRA never seen, seconds until the job can step": median(first),
            "a LoRA seen before": median(again),
            "one at a time": serial,
            "at once, different LoRAs": different,
            "at once, the same LoRA": same,
        }

    def throughput(self, steps: int, block_rows: int, count: int) -> float:
        """Requests a second of `count` requests at once."""
        chain = self.chain(block_rows)
        self.together(chain, steps, [{}] * count)
        seconds = _timed(lambda: self.together(chain, steps, [{}] * count))
        chain.close()
        return count / seconds

    def request(self, chain: StageChain, steps: int, **fields: Any) -> dict[str, Any]:
        """A request's response."""
        (response,) = self.together(chain, steps, [fields])
        return response

    def together(self, chain: StageChain, steps: int, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The responses of requests that start at once."""
        running = []
        for extra in requests:
            request = self._requests.next(self._pixels)
            fields = {key: value for key, value in request.fields.items() if key != "image_url"}
            running.append(chain.submit(self._fields(steps) | fields | extra, request.image))
        return [json.loads(future.result()[RESPONSE][0]) for future in running]

    def _fields(self, steps: int) -> dict[str, Any]:
        return {"model_name": str(self._models.path(self._name)), "num_inference_steps": steps}


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _picture(answer: Tensors) -> Image.Image:
    return Image.open(io.BytesIO(answer[IMAGES][0]))


def _psnr(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio of two pictures, dB."""
    pixels = [np.asarray(picture.convert("RGB"), np.float64) for picture in (one, other)]
    error = float(((pixels[0] - pixels[1]) ** 2).mean())
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))
