"""The result of Triton as the API's output: its pictures and latents become files with addresses."""

from __future__ import annotations

import json
from typing import Any

import safetensors.numpy

from lorikeet.client.result import Latents, Result
from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.files.stored_file import Lifecycle

_LATENTS_TYPE = "application/octet-stream"


async def store_output(result: Result, store: FileStore, owner: str, lifecycle: Lifecycle) -> dict[str, Any]:
    """The output's JSON, once all its files are stored."""
    output: dict[str, Any] = json.loads(result.response.to_json())
    for image, content in zip(output["images"], result.files, strict=True):
        stored = await store.save(content, owner, image["content_type"], lifecycle)
        image |= {"url": store.url(stored.name), "file_name": stored.name, "file_size": stored.size}
    for name, latents in (("debug_latents", result.latents), ("debug_per_pass_latents", result.per_pass_latents)):
        if latents is not None:
            output[name] = await _store_latents(latents, store, owner, lifecycle)
    return output


async def _store_latents(latents: Latents, store: FileStore, owner: str, lifecycle: Lifecycle) -> dict[str, Any]:
    """One safetensors file with the float32 tensor `latents`."""
    content = safetensors.numpy.save({"latents": latents})
    stored = await store.save(content, owner, _LATENTS_TYPE, lifecycle, ".safetensors")
    return {
        "url": store.url(stored.name),
        "content_type": stored.content_type,
        "file_name": stored.name,
        "file_size": stored.size,
    }
