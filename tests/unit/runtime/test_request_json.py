"""The bounds of a request's JSON: size, depth and number of values, counted before it is parsed."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorikeet.schema import unknown_field_warnings
from runtime.files.json_size import JsonSize, json_size
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.request_json import MAX_DEPTH, MAX_VALUES, read_request
from tests.unit.runtime.cpu_time import least_cpu_seconds

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
    assert json_size(json.dumps([text]).encode(), MAX_VALUES, MAX_DEPTH) == JsonSize(1, 1)


JSON = st.recursive(
    st.none() | st.integers() | st.text('ab[]{},:"\\é'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a[]{},:"\\'), inner),
)


@given(JSON, st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_the_size_equals_a_walks_for_any_block_length(value: Any, block: int, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.files.json_size._BLOCK", block)
        assert json_size(data, MAX_VALUES, MAX_DEPTH) == _walk(value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loras": [{"path": "a"}] * 101}, "loras: at most 100, not 101"),
        ({"embeddings": [{"path": "a"}] * 33}, "embeddings: at most 32, not 33"),
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


def _body(**fields: Any) -> bytes:
    return json.dumps(REQUEST | fields).encode()


def _repeated(item: str, length: int) -> str:
    """The item so often, with commas, that the text has about this length."""
    return ",".join([item] * (length // (len(item) + 1)))


LENGTH = 10_000_000
LARGE = {
    "loras of numbers": lambda: b'{"loras":[%s]}' % _repeated("5", LENGTH).encode(),
    "empty lists": lambda: b'{"unknown":[%s]}' % _repeated("[]", LENGTH).encode(),
    "empty objects in a known field": lambda: b'{"embeddings":[%s]}' % _repeated("{}", LENGTH).encode(),
    "as many values as the bound": lambda: _body(unknown=[{}] * (MAX_VALUES // 3)),
    "as many schedule steps as the bound": lambda: _body(timesteps={"method": "array", "array": ["x"] * 99_000}),
    "as many unknown fields as the bound": lambda: _body(**{f"unknown{number}": 1 for number in range(49_000)}),
    "unknown fields": lambda: b"{%s}" % _repeated('"a":1', LENGTH).encode(),
    "one field again and again": lambda: b"{%s}" % _repeated('"prompt":"a"', LENGTH).encode(),
    "deep": lambda: b"[" * LENGTH,
    "closed only": lambda: b"]" * LENGTH,
    "quotes": lambda: b'"' * LENGTH,
    "backslashes": lambda: b'{"prompt":"' + b"\\" * LENGTH + b'"}',
    "a long prompt": lambda: _body(prompt="a" * LENGTH),
    "a long file": lambda: _body(image_url="data:image/png;base64," + "A" * LENGTH),
    "a long number": lambda: b'{"seed":' + b"9" * LENGTH + b"}",
    "a long number as text": lambda: _body(seed="9" * LENGTH),
    "a long unknown number": lambda: _body()[:-1] + b',"unknown":' + b"9" * LENGTH + b"}",
    "a long scheduler": lambda: _body(scheduler="e" * LENGTH),
    "a long name": lambda: _body(**{"a" * LENGTH: 1}),
    "a long name of a wrong value": lambda: _body()[:-1] + b',"%s":1e999}' % (b"a" * LENGTH),
    "no JSON": lambda: b"a" * LENGTH,
    "zeros": lambda: bytes(LENGTH),
    "spaces": lambda: b" " * LENGTH + b"{}",
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_request_is_read_or_refused_in_bounded_time_and_memory(name: str) -> None:
    data = LARGE[name]()
    assert least_cpu_seconds(lambda: _warnings_or_error(data)) < 0.5
    tracemalloc.start()
    found = _warnings_or_error(data)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5 * max(len(data), LENGTH)
    assert sum(map(len, found)) < 4000


def _warnings_or_error(data: bytes) -> list[str]:
    try:
        return unknown_field_warnings(read_request(data, MANY_BYTES))
    except InvalidArgument as error:
        return [str(error)]


@pytest.mark.parametrize("block", ["28 MB in an unknown field", "28 MB in a string"])
def test_28_mb_of_brackets_take_no_memory(block: str) -> None:
    text = b"[]," * (28_000_000 // 3)
    data = {
        "28 MB in an unknown field": b'{"unknown":[' + text + b"0]}",
        "28 MB in a string": b'{"model_name":"a","prompt":"' + text + b'"}',
    }[block]
    tracemalloc.start()
    with pytest.raises(InvalidArgument):
        read_request(data, 1 << 25)
    assert tracemalloc.get_traced_memory()[1] < 5 * len(data)
    tracemalloc.stop()


def test_the_last_of_a_repeated_field_counts() -> None:
    assert read_request(b'{"model_name":"a","prompt":"first","prompt":"last"}', MANY_BYTES).prompt == "last"
