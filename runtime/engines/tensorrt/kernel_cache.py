"""The kernels that TensorRT-RTX compiled, in a file: another start of the server does not compile them again."""

from __future__ import annotations

import logging
from pathlib import Path

from runtime.engines.tensorrt.flavour import trt

log = logging.getLogger("lorikeet")


class KernelCache:
    """Attached to a runtime configuration before its context is made."""

    def __init__(self, config: trt.IRuntimeConfig, path: Path) -> None:
        self._cache, self._path = config.create_runtime_cache(), path
        # TensorRT-RTX refuses the file of another version or GPU, and starts with an empty cache.
        if path.is_file() and not self._cache.deserialize(path.read_bytes()):
            log.info("%s: other kernels than this machine's; they are compiled again", path)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the file, which is whole at any time. A folder that cannot be written is no error."""
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            part.write_bytes(memoryview(self._cache.serialize()))
            part.replace(self._path)
        except OSError as error:
            log.warning("%s: compiled kernels are not kept (%s)", self._path, error.strerror)
