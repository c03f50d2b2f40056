"""The bounds of a request's JSON: size, depth and number of values, counted before it is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare import request_json
from runtime.stages.prepare.request_json import MAX_DEPTH, MAX_VALUES, JsonSize, json_size, read_request

REQUEST = {"model_name": "sd15", "prompt": "a bird"}
MANY_BYTES = 1 << 24


def _read(max_bytes: int = MANY_BYTES, **fields: Any) -> None:
    read_request(json.dumps(REQUEST | fields).encode(), max_bytes)


def _walk(value: Any) -> JsonSize:
    """What `json_size` counts, by recursion."""
    if not isinstance(value, dict | list):
        return JsonSize(0, 0)
    children = list(value.values()) if isinstance(value, dict) else value
    sizes = [_walk(child) for child in children]
    own = (2 if isinstance(value, dict) else 1) * len(children) or 1
    return JsonSize(own + sum(size.values for size in sizes), 1 + max((size.depth for size in sizes), default=0))


def test_a_request_may_be_as_long_as_the_setting() -> None:
    length = len(json.dumps(REQUEST))
    _read(length)
    with pytest.raises(InvalidArgument, match=rf"^REQUEST: {length} bytes, expected at most {length - 1} \("):
        _read(length - 1)


def test_a_request_may_be_nested_as_deep_as_the_bound() -> None:
    levels = MAX_DEPTH - 1  # the request itself is one
    _read(extra=json.loads("[" * levels + "]" * levels))
    with pytest.raises(InvalidArgument, match=r"^REQUEST: nested deeper than 32 levels: "):
        _read(extra=json.loads("[" * (levels + 1) + "]" * (levels + 1)))


def test_a_request_may_have_as_many_values_as_the_bound() -> None:
    count = MAX_VALUES - 2 * len(REQUEST) - 2  # `extra` and its name
    _read(extra=[0] * count)
    with pytest.raises(InvalidArgument, match=r"^REQUEST: more than 100000 names and values"):
        _read(extra=[0] * (count + 1))


def test_a_text_that_is_not_json_has_the_same_bounds() -> None:
    with pytest.raises(InvalidArgument, match="nested deeper"):
        read_request(b"[" * 1000, MANY_BYTES)
    with pytest.raises(InvalidArgument, match="more than"):
        read_request(b"," * (MAX_VALUES + 1), MANY_BYTES)


@pytest.mark.parametrize(
    "text", ["[" * 50, "{,:" * 50_000, '"[' * 50, "\\" * 51 + "[" * 50, "\\" * 50 + '"[,' * 50_000], ids=range(5)
)
def test_brackets_quotes_and_backslashes_in_a_string_are_not_counted(text: str) -> None:
    assert json_size(json.dumps([text]).encode()) == JsonSize(1, 1)


JSON = st.recursive(
    st.none() | st.integers() | st.text('ab[]{},:"\\é'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a[]{},:"\\'), inner),
)


@given(JSON, st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_the_size_equals_a_walks_for_any_block_length(value: Any, block: int, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_json, "_BLOCK", block)
        assert json_size(data) == _walk(value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loras": [{"path": "a"}] * 101}, "loras: at most 100, not 101"),
        ({"embeddings": [{"path": "a"}] * 2}, "embeddings: at most 1, not 2"),
        ({"embeddings": [{"path": "a", "tokens": ["x"] * 101}]}, "embeddings[0].tokens: at most 100, not 101"),
        ({"controlnets": [{"path": "a", "image_url": "b"}] * 17}, "controlnets: at most 16, not 17"),
        ({"ip_adapter": [{"path": "a", "ip_adapter_image_url": "b"}] * 17}, "ip_adapter: at most 16, not 17"),
        (
            {"ip_adapter": [{"path": "a", "ip_adapter_image_url": ["b"] * 65}]},
            "ip_adapter[0].ip_adapter_image_url: at most 64, not 65",
        ),
        ({"loras": [5, 5]}, "loras[0]: Input should be an object (got 5)"),
    ],
)
def test_a_list_that_is_too_long_or_wrong_names_its_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _read(**fields)
    assert str(caught.value) == message
