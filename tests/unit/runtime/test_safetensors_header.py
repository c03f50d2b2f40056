"""The header of a .safetensors file: what is accepted is what the library accepts, with the same values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from runtime.files.safetensors_header import parse_header, read_header_text
from tests.unit.runtime.lora_files import file_bytes

BITS = {"BOOL": 8, "F8_E4M3": 8, "F16": 16, "BF16": 16, "F32": 32, "I64": 64, "F4": 4}
OTHER_DTYPES = [
    "F6_E2M3",
    "F6_E3M2",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E8M0",
    "F8_E4M3FNUZ",
    "F8_E5M2FNUZ",
    "I16",
    "U16",
    "I32",
    "U32",
    "C64",
    "F64",
    "U64",
]
Values = dict[str, tuple[str, list[int]]]  # name -> dtype, shape


def _ours(path: Path) -> tuple[Values, dict[str, str]] | None:
    try:
        header = parse_header(read_header_text(path))
    except ValueError:
        return None
    return {name: (info.dtype, list(info.shape)) for name, info in header.tensors.items()}, header.metadata


def _librarys(path: Path) -> tuple[Values, dict[str, str]] | None:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
            return {name: (one.get_dtype(), one.get_shape()) for name, one in slices.items()}, file.metadata() or {}
    except SafetensorError:
        return None


@st.composite
def _headers(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A valid header, and the bytes of its data."""
    header: dict[str, Any] = {}
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3))
    end = 0
    for name in draw(st.lists(st.text(max_size=4), max_size=5, unique=True)):
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 4]), max_size=3))
        count = 1
        for size in shape:
            count *= size
        begin, end = end, end + count * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    names = draw(st.permutations(list(header)))
    return {name: header[name] for name in names}, end


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(header=_headers(), data=st.data())
def test_a_damaged_header_is_read_as_the_library_reads_it(
    tmp_path: Path, header: tuple[dict[str, Any], int], data: st.DataObject
) -> None:
    entries, size = header
    text = bytearray(json.dumps(entries, ensure_ascii=data.draw(st.booleans())).encode())
    if data.draw(st.booleans()):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b'0123456789[]{},:"\\ a\xff-.et'))
    size += data.draw(st.sampled_from([0, 0, 0, 1, -1]))
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(max(size, 0)))
    assert _ours(path) == _librarys(path)


def test_the_places_of_tensors_count_from_the_begin_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    entries = {"b": ("F16", [2, 3], 4, 16), "a": ("F32", [], 0, 4), "c": ("F32", [0, 5], 16, 16)}
    header = {
        name: {"dtype": d, "shape": s, "data_offsets": [begin, end]} for name, (d, s, begin, end) in entries.items()
    }
    path.write_bytes(file_bytes(header, bytes(16)))
    data = path.stat().st_size - 16
    found = parse_header(read_header_text(path)).tensors
    assert list(found) == ["b", "a", "c"]
    assert {name: (i.dtype, list(i.shape), i.begin - data, i.end - data) for name, i in found.items()} == entries


@pytest.mark.parametrize("dtype", [*BITS, *OTHER_DTYPES])
def test_every_dtype_of_the_library_is_known(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.safetensors"
    for size in range(65):
        path.write_bytes(file_bytes({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}, bytes(size)))
        assert _ours(path) == _librarys(path)


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    "text",
    [
        '{"a":["F32",[1],[0,4]]}',
        '{"a":"dtype"}',
        '{"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":"1","data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":{"1":1},"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":{"0":0,"4":4}}}',
        '{"a":{"dtype":"F32","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}}',  # no torch tensor can have it
        '{"a":{"dtype":"F32","shape":[' + "1," * 64 + '1],"data_offsets":[0,4]}}',
        '{"__metadata__":false,"a":' + ENTRY + "}",
        '{"__metadata__":{"a":null},"a":' + ENTRY + "}",
        '{"\\ud800":' + ENTRY + "}",
        '{"a":' + ENTRY + "} x",
        '{"a":' + ENTRY + ',"b":' + ENTRY + "}",
    ],
)
def test_an_entry_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(4))
    with pytest.raises(ValueError, match=r"header|metadata|tensor|JSON|column"):
        parse_header(read_header_text(path))
