"""`python -m runtime.faces.worker DESCRIPTOR THREADS`: runs the networks of one pack for `FaceProcess`.

The networks are untrusted. What they do to this process, its memory included, stays in it. It answers each question
with one line of JSON, and ends when the other end of the connection is closed.
"""

from __future__ import annotations

import json
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from runtime.faces.face import Face, FaceError
from runtime.faces.pack import Pack

_MEMORY = 8 << 30  # bytes that it may write


def main(descriptor: int, threads: int) -> None:
    # Not RLIMIT_AS: with many threads, the allocator reserves more addresses than it uses.
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pack: Pack | None = None
    with Connection(descriptor) as connection:
        while True:
            try:
                question, content = json.loads(connection.recv_bytes()), connection.recv_bytes()
            except EOFError:
                return
            try:
                if question["action"] == "load":
                    pack = Pack([Path(path) for path in question["paths"]], threads)
                    answer: Any = {"side": pack.detector_side}
                else:
                    assert pack is not None
                    answer = _answer(pack, question, content)
            except FaceError as error:
                answer = {"error": str(error)}
            except MemoryError:
                answer = {"error": f"its networks need more than {_MEMORY} bytes of memory"}
            connection.send_bytes(json.dumps(answer).encode())


def _answer(pack: Pack, question: Any, content: bytes) -> Any:
    side = question["side"]
    pixels = np.frombuffer(content, np.uint8).reshape(side, side, 3)
    if question["action"] == "embed":
        return {"embedding": pack.embed(pixels).tolist()}
    return {"faces": [_written(face) for face in pack.detect(pixels)]}


def _written(face: Face) -> list[float]:
    return [face.score, *face.box.tolist(), *face.points.reshape(-1).tolist()]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
