"""openvino_genai in a process of its own environment: `python genai_worker.py pipeline|unet FOLDER LORA...`.

Each line of the standard input is a call in JSON, {"method": ..., "arguments": {...}}. Each line of the output is its
answer: {"result": ...} or {"error": traceback}. Nothing of this repository is imported."""

from __future__ import annotations

import base64
import io
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from PIL import Image


class Pipeline:
    """The image-to-image pipeline of a converted checkpoint, made for LoRAs with the layers of `loras`."""

    def __init__(self, folder: str, loras: list[str]) -> None:
        self._adapters: dict[str, genai.Adapter] = {}
        self._pipe = genai.Image2ImagePipeline(folder, "CPU", adapters=self._config(loras))
        scheduler = Path(folder) / "scheduler" / "scheduler_config.json"
        self._pipe.set_scheduler(genai.Scheduler.from_config(scheduler, genai.Scheduler.Type.DDIM))

    def generate(self, loras: list[str], prompt: str, image: str, **options: Any) -> dict[str, float]:
        """Seconds of a request, from the PNG file (base64) to the PNG result, and of its UNet calls.

        `options` are those of openvino_genai's `generate`."""
        begun = time.perf_counter()
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"))[None]
        result = self._pipe.generate(prompt, ov.Tensor(pixels), adapters=self._config(loras), **options)
        Image.fromarray(result.data[0]).save(io.BytesIO(), "PNG")
        seconds = time.perf_counter() - begun
        calls = self._pipe.get_performance_metrics().raw_metrics.unet_inference_durations
        return {"seconds": seconds, "unet_calls": len(calls)}

    def _config(self, loras: list[str]) -> genai.AdapterConfig:
        """The LoRAs at scale 1. A file is read at its first use."""
        for path in loras:
            if path not in self._adapters:
                self._adapters[path] = genai.Adapter(path)
        return genai.AdapterConfig([(self._adapters[path], 1.0) for path in loras])


class UNet:
    """The UNet alone, made for LoRAs with the layers of `loras`."""

    def __init__(self, folder: str, loras: list[str]) -> None:
        config = genai.AdapterConfig([(genai.Adapter(path), 1.0) for path in loras])
        self._unet = genai.UNet2DConditionModel(Path(folder) / "unet", "CPU", adapters=config)

    def set_adapters(self, lora: str) -> dict[str, float]:
        """Seconds to read a LoRA file and set it, and seconds to set it again after none."""
        begun = time.perf_counter()
        adapter = genai.Adapter(lora)
        self._unet.set_adapters(genai.AdapterConfig([(adapter, 1.0)]))
        new = time.perf_counter() - begun
        self._unet.set_adapters(genai.AdapterConfig())
        begun = time.perf_counter()
        self._unet.set_adapters(genai.AdapterConfig([(adapter, 1.0)]))
        return {"new": new, "seen": time.perf_counter() - begun}


def main(kind: str, folder: str, *loras: str) -> None:
    target: Any = None
    for line in sys.stdin:
        try:
            call = json.loads(line)
            target = target or {"pipeline": Pipeline, "unet": UNet}[kind](folder, list(loras))
            answer = {"result": getattr(target, call["method"])(**call["arguments"])}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
