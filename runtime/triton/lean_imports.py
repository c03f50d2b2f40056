"""Makes the start of a stage faster: hides packages that diffusers imports although no stage uses them.

diffusers imports each optional package that is installed, and registers functions with torch.compile, whose compiler is
a large package too. Without them the import of a UNet takes about half of the time (7.5 s -> 4.0 s of one core, AVX2).
Four stages import torch at once when a server starts, so this is most of the time of a start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

DIFFUSERS_EXTRAS = ("accelerate", "peft", "torch._dynamo", "transformers")


@contextmanager
def without(packages: tuple[str, ...]) -> Iterator[None]:
    """Imports of these packages fail inside this context, as if they were not installed.

    Afterwards they can be imported; diffusers keeps regarding them as absent.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None blocks an import
    try:
        if "torch._dynamo" in hidden:
            import torch

            with patch.object(torch.compiler, "disable", _undecorated):  # it imports torch._dynamo
                yield
        else:
            yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _undecorated(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """torch.compiler.disable without an effect: no stage compiles."""
    return function if function is not None else lambda decorated: decorated
