"""Reads a JSON object from the body of a request, of bounded size."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from lorikeet.gateway.api_error import ApiError, FieldErrors
from lorikeet.gateway.services import services_of
from lorikeet.schema.base import json_problem

AnyModel = TypeVar("AnyModel", bound=BaseModel)


async def read_json_model(request: Request, model: type[AnyModel]) -> AnyModel:
    """The object as a model. Raises ApiError as `read_json_object` does, RequestValidationError for invalid fields."""
    value = await read_json_object(request)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        raise RequestValidationError(details) from error


async def read_json_object(request: Request) -> dict[str, Any]:
    """The object. Raises ApiError: 413 when the body is too large, 422 when it is no JSON object."""
    limit = services_of(request).settings.max_body_bytes
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ApiError(
                413, f"The body has more than {limit} bytes. Upload large files to the storage.", "bad_request"
            )
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FieldErrors([{"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}]) from error
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary"
        raise FieldErrors([{"loc": ["body"], "msg": message, "type": "dict_type"}])
    if problem := json_problem(value):
        raise FieldErrors([{"loc": ["body"], "msg": problem, "type": "value_error"}])
    return value
