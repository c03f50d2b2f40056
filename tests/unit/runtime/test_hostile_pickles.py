"""Pickles that hold code, no tensors or damage are refused, and nothing in a pickle is ever run."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.store import Store
from runtime.files.torch_pickle import to_safetensors
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from tests.unit.runtime.torch_files import DeviceTensor, assert_equal, converted, saved, some_tensors


def test_names_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """A dictionary with a long key that is there in 2 ** 14 places makes 4 GB of names."""
    shared: dict[str, Any] = {"n" * (1 << 18): {}}
    for _ in range(14):
        shared = {"a": shared, "b": shared}
    with pytest.raises(WeightFileError, match="names of its tensors have more than"):
        converted(tmp_path / "a.pt", saved(shared))


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(saved({"a": torch.randn(2 << 20)}))
    chunks = to_safetensors(path)
    next(chunks)
    os.truncate(path, 1 << 20)
    with pytest.raises(WeightFileError, match="truncated"):
        list(chunks)


class _Code:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self._path}",))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, legacy: bool, protocol: int) -> None:
    trap = tmp_path / "executed"
    content = saved(
        {"a": torch.ones(1), "b": _Code(trap)}, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(WeightFileError, match=r"torch 1\.6 or later" if legacy else r"names (posix|nt)\.system.* code"):
        converted(tmp_path / "a.pt", content)
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Code(trap)))
    assert trap.exists(), "or the test would say nothing"


@pytest.mark.parametrize(
    "content",
    [
        torch.ones(3),
        [torch.ones(3)],
        {},
        {"a": 5},
        {"a": {}},
        {"a": {"b": torch.ones(1), "c": 5}},
        {"a": [torch.ones(1)]},
        {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}},
        {"__metadata__": torch.ones(1)},
        {(("a",),): torch.ones(1)},
    ],
)
def test_what_is_no_named_tensor_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(
        WeightFileError, match=r"no dictionary of|no tensors|expected a tensor|there twice|not a string"
    ):
        converted(tmp_path / "a.pt", saved(content))


@pytest.mark.parametrize("content", [{"a": torch.nn.Linear(2, 2)}, {"a": torch.ones(2).to_sparse()}])
def test_what_takes_code_to_build_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(WeightFileError, match="which weights do not need"):
        converted(tmp_path / "a.pt", saved(content))


@pytest.mark.parametrize("function", ["_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor"])
def test_a_tensor_of_an_apple_gpu_is_refused_by_its_device(tmp_path: Path, function: str) -> None:
    content = {"string_to_token": {"*": 265}, "string_to_param": {"*": DeviceTensor(function)}}
    with pytest.raises(WeightFileError, match=r"saved on an Apple GPU.*: load it and save it again on the CPU"):
        converted(tmp_path / "a.pt", saved(content))


def _archive(pickled: bytes, storage: bytes = bytes(16), **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", storage)
    return file.getvalue()


def _pickled(offset: Any, shape: Any, strides: Any, key: str = "0") -> bytes:
    """A pickle of one tensor of float32 by hand. Arguments of any type are possible."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value: object) -> object:
            return ("storage", torch.FloatStorage, key, "cpu", 4) if value is Pickler else None

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Pickler, offset, shape, strides, False, OrderedDict())

    file = io.BytesIO()
    Pickler(file, 2).dump({"a": Tensor()})
    return file.getvalue()


def test_a_pickle_by_hand_is_like_those_of_torch(tmp_path: Path) -> None:
    """Or the refusals below would say little."""
    found = converted(tmp_path / "a.pt", _archive(_pickled(1, (3,), (1,)), torch.arange(4.0).numpy().tobytes()))
    assert_equal(found, {"a": torch.tensor([1.0, 2.0, 3.0])})


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (4,), (1,)),
        (0, (2, 3), (3, 1)),
        (0, (2, 2), (3, 1)),
        (4, (1,), (1,)),
        (0, (10_000_000_000,), (1,)),
        (0, (10_000_000_000,), (0,)),
        (0, (1 << 61, 1 << 61), (0, 0)),
        (0, (1 << 64,), (1,)),
        (0, (-1, -4), (1, 1)),
        (-1, (2,), (1,)),
        (0, (4,), (-1,)),
        (0, (4,), ()),
        (0, (1,) * 9, (1,) * 9),
        (0, (2.0,), (1,)),
        (True, (2,), (1,)),
        ("0", (2,), (1,)),
        (0, [4], [1]),
    ],
)
def test_a_tensor_that_its_storage_does_not_hold_is_refused(
    tmp_path: Path, offset: Any, shape: Any, strides: Any
) -> None:
    with pytest.raises(WeightFileError, match=r"claim|exceeds its storage|not an integer|axes|damaged"):
        converted(tmp_path / "a.pt", _archive(_pickled(offset, shape, strides)))


def test_a_tensor_that_is_stored_with_the_opposite_sign_is_refused(tmp_path: Path) -> None:
    negated = torch.tensor([1 + 2j, 3 + 4j]).conj().imag
    assert negated.is_neg()
    with pytest.raises(WeightFileError, match=r"opposite sign .* save it after resolve_neg\(\)"):
        converted(tmp_path / "a.pt", saved({"a": negated}))
    assert_equal(converted(tmp_path / "a.pt", saved({"a": negated.resolve_neg()})), {"a": torch.tensor([-2.0, -4.0])})


def test_an_empty_tensor_of_huge_sizes_is_one_without_data(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(_archive(_pickled(0, (0, 1 << 60), (1, 1))))
    (tmp_path / "a.safetensors").write_bytes(b"".join(to_safetensors(path)))
    assert read_header(tmp_path / "a.safetensors").tensors["a"].shape == (0, 1 << 60)


def _text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


PARAMETER_DICT = b"ctorch.nn.modules.container\nParameterDict\n"
NESTED = b")" + b"\x85" * 120_000
SHARED = b")" + b"q\x00h\x00\x86" * 60  # 2 ** 60 values to hash


def _parameter_dict(content: bytes) -> bytes:
    """A pickle of a ParameterDict with this `_parameters`."""
    return _archive(b"\x80\x02" + PARAMETER_DICT + b")\x81}" + _text("_parameters") + content + b"sb.")


def _pairs(key: bytes) -> bytes:
    """A pickled list of one pair, which dict.update would take."""
    return b"](" + key + b"N\x86e"


def test_a_parameter_dict_by_hand_is_read(tmp_path: Path) -> None:
    """Or the refusals of others would say little."""
    with pytest.raises(WeightFileError, match="its entry name is int; expected a tensor"):
        converted(tmp_path / "a.pt", _parameter_dict(b"}" + _text("name") + b"K\x01s"))


def test_a_dictionary_that_is_named_often_is_not_copied(tmp_path: Path) -> None:
    """1,000 ParameterDicts have one content of 16,000 keys. Their copies would take 600 MB."""
    keys = b"".join(b"M" + number.to_bytes(2, "little") + b"N" for number in range(16_000))
    attributes = b"}" + _text("_parameters") + b"}(" + keys + b"usq\x01"
    start = b"\x80\x02" + PARAMETER_DICT + b"q\x00" + attributes
    content = _archive(start + b"](" + b"h\x00)\x81h\x01b" * 1_000 + b"e.")
    tracemalloc.start()
    try:
        with pytest.raises(WeightFileError, match="more than 131072 values"):
            converted(tmp_path / "a.pt", content)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_parameter_dict(_pairs(NESTED)), "damaged"),
        (_parameter_dict(_pairs(SHARED)), "damaged"),
        (_parameter_dict(_pairs(b"K\x01")), "damaged"),
        (_parameter_dict(b"](" + _text("ab") + b"e"), "damaged"),  # dict.update takes it for a pair too
        (_parameter_dict(b"}" + NESTED + b"Ns"), "not a string"),
        (_parameter_dict(b"}" + _text("a") + NESTED + b"s"), "deeper than 16"),
        (_archive(b"\x80\x02}(K\x01K\x02u" + NESTED + b"b."), "is int; expected"),
        (_archive(b"\x80\x02" + PARAMETER_DICT + NESTED + b"\x81."), "damaged"),
        (_archive(b"\x80\x02" + PARAMETER_DICT + SHARED + b"\x81."), "damaged"),
        (_archive(b"\x80\x02" + PARAMETER_DICT + b")\x81" + SHARED + b"b."), "damaged"),
        (_archive(b"\x80\x02c__builtin__\nset\n" + SHARED + b"R."), "damaged"),
        (_archive(b"\x80\x02" + SHARED + b"Q."), "damaged"),
        (_archive(b"\x80\x02(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") * 4 + b"tQ."), "damaged"),
        (_archive(b"\x80\x02}X\x03\x00\x00\x00\xed\xa0\x80K\x01s."), r"its entry \\ud800 is int"),
        (_archive(_pickled(0, (4,), (1,)), compression=zipfile.ZIP_DEFLATED), "compressed"),
        (_archive(_pickled(0, (4,), (1,), "1")), "lacks its entry data/1"),
        (_archive(_pickled(0, (4,), (1,), "../../x")), "lacks its entry"),
        (_archive(b"\x80\x02" + b"}" * (5 << 20)), "too many for names"),
        (_archive(b"\x80\x02}q"), "damaged|not a readable"),
        (_archive(b"\x80\x02}"), "not a readable|no end"),
        (_archive(b"0."), "instruction POP"),
        (_archive(b"."), "damaged"),
        (_archive(b"\x80\x02csystem\n."), "not a readable|damaged"),
        (_archive(b"\x80\x02cbuiltins\neval\n."), r"names builtins\.eval"),
        (_archive(b"\x80\x02ctorch\nload\n."), r"names torch\.load"),
        (_archive(b"\x80\x04)" + b"2\x86" * 60 + b"2\x93."), "instruction DUP"),
        (_archive(b"\x80\x04)" + b"q\x00h\x00\x86" * 60 + b"q\x00h\x00\x93."), "damaged"),  # 2 ** 60 to hash
        (_archive(b"\x80\x04}(" + b")" + b"q\x00h\x00\x86" * 60 + b"Nu."), "not a string"),
        (_archive(b"\x80\x04" + b"]" + b"q\x00h\x00a."), "deeper than 16"),  # a list in itself
        (_archive(b"\x80\x04" + b"}" + b"q\x00X\x01\x00\x00\x00ah\x00s."), "deeper than 16"),
        (_archive(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b"."), "deeper than 16"),
        (_archive(b"\x80\x04)" + b"\x85" * 100_000 + b"."), "deeper than 16"),
        (_archive(b"\x80\x04" + b"]" + b"q\x00](" + b"h\x00" * 200_000 + b"e."), "more than 131072 values"),
        (_archive(b"\x80\x04]" + b"q\x00](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00e" * 12 + b"."), "131072 values"),
        (_archive(b"\x80\x04X\xff\xff\xff\x7fa."), "not a readable"),  # a string of 2 GB
        (_archive(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fa."), "not a readable"),
        (_archive(b"\x80\x04\x8b\xff\xff\xff\x7fa."), "not a readable"),
        (_archive(b"\x80\x04I" + b"9" * 100_000 + b"\n."), "not a readable|instruction INT"),
        (_archive(b"\x80\x04ctorch\nFloatStorage\n."), "a class or a storage"),
        (b"PK\x03\x04" * 20, "not a readable"),
        (b"PK\x05\x06" + bytes(18), "zip format of torch"),
        (b"\x80\x02}.", "zip format of torch"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(WeightFileError, match=reason):
        converted(tmp_path / "a.pt", content)


def test_a_list_of_entries_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    content = bytearray(_archive(_pickled(0, (4,), (1,))))
    end = content.rindex(b"PK\x05\x06")
    begin = content.index(b"PK\x01\x02")
    entries = bytes(content[begin:end])
    many = entries * (5 * 1024**2 // len(entries))
    content[begin:end] = many
    end += len(many) - len(entries)
    content[end + 12 : end + 16] = len(many).to_bytes(4, "little")
    with pytest.raises(WeightFileError, match="list of entries has more than"):
        converted(tmp_path / "a.pt", bytes(content))


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = saved(some_tensors())
    for end in range(1, len(whole), 97):
        with pytest.raises(WeightFileError):
            converted(tmp_path / "a.pt", whole[:end])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(place=st.integers(0, 10_000), change=st.binary(min_size=1, max_size=8))
def test_any_damage_is_refused_or_harmless(tmp_path: Path, place: int, change: bytes) -> None:
    content = bytearray(saved({"a": torch.ones(5, 3), "b.alpha": torch.tensor(1.0)}))
    place %= len(content)
    content[place : place + len(change)] = change
    try:
        converted(tmp_path / "a.pt", bytes(content))
    except WeightFileError:
        return


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(pickled=st.binary(max_size=40))
def test_any_pickle_is_refused_or_harmless(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(WeightFileError):
        converted(tmp_path / "a.pt", _archive(pickled))


def test_of_a_refused_pickle_nothing_is_kept(settings: Settings, store: Store, tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    request = ResolveContext([saved({"a": torch.ones(1), "b": _Code(trap)})], store.pins(), lambda: None)
    with pytest.raises(InvalidArgument, match=r"^loras\[0\]\.path: tensor:0: its pickle names posix\.system"):
        FileResolver(settings, store).lora("loras[0].path", "tensor:0", request)
    assert not trap.exists()
    assert list((settings.store / "blobs").iterdir()) == []
