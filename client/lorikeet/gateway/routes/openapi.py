"""What OpenAPI says of bodies that the gateway reads itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from lorikeet.gateway.endpoints import ENDPOINTS, Endpoint

_REFERENCE = "#/components/schemas/{model}"


def input_body(endpoint: Endpoint) -> dict[str, Any]:
    """The request body of an endpoint."""
    schema = {"$ref": _REFERENCE.format(model=endpoint.title)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The request body of a route that reads it with `read_json_model`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(model)}}}}


def bytes_body() -> dict[str, Any]:
    """The request body of a route that stores what it is sent."""
    schema = {"type": "string", "format": "binary"}
    return {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": schema}}}}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inline(definitions[node["$ref"].rpartition("/")[2]])
        return {name: inline(value) for name, value in node.items()}

    return dict(inline(schema))


def publish_schemas(app: FastAPI) -> None:
    """Make `app.openapi()` contain the endpoints' input schemas."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for endpoint in ENDPOINTS.values():
                schema = endpoint.json_schema(_REFERENCE)
                schemas |= schema.pop("$defs", {})
                schemas[endpoint.title] = schema
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
