"""openvino_genai, called in its own process."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from typing_extensions import Self

from benchmarks.genai_environment import GenaiEnvironment
from benchmarks.unique_requests import GUIDANCE_SCALE, NOISE_STRENGTH, UniqueRequest

_WORKER = Path(__file__).with_name("genai_worker.py")


class PeerFailed(RuntimeError):
    """The peer raised an exception or its process ended; the message has its traceback."""


class GenaiPeer:
    """A context manager: the process ends with the block. `kind`: what the process makes of the converted `folder`.

    `loras`: files whose layers later LoRAs may change."""

    def __init__(
        self, environment: GenaiEnvironment, kind: Literal["pipeline", "unet"], folder: Path, loras: Sequence[Path]
    ) -> None:
        self._process = subprocess.Popen(
            [environment.python, _WORKER, kind, folder.absolute(), *loras],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def generate(self, request: UniqueRequest, steps: int, loras: Sequence[Path]) -> float:
        """Seconds from the PNG file to the PNG result. Asserts that the pipeline ran `steps` steps."""
        schedule_steps = int(steps / NOISE_STRENGTH)
        answer = self._call(
            "generate",
            loras=list(map(str, loras)),
            prompt=request.prompt,
            image=base64.b64encode(request.image).decode(),
            strength=(steps + 0.5) / schedule_steps,
            num_inference_steps=schedule_steps,
            guidance_scale=GUIDANCE_SCALE,
            rng_seed=request.seed,
        )
        assert answer["unet_calls"] == steps, f"openvino_genai ran {answer['unet_calls']} steps, not {steps}"
        return float(answer["seconds"])

    def set_adapters(self, lora: Path) -> tuple[float, float]:
        """Seconds to read and set a LoRA, and to set it again. For the kind `unet`."""
        answer = self._call("set_adapters", lora=str(lora))
        return float(answer["new"]), float(answer["seen"])

    def _call(self, method: str, **arguments: object) -> dict[str, Any]:
        """Raises PeerFailed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"openvino_genai's process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
