"""An index on disk: one file in the safetensors format, written whole and then renamed, read as a memory map."""

import ctypes
import json
import mmap
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from towers.checkpoint import replace
from towers.kernels.cpu.topk_call import BLOCK
from towers.search.mapped_file import MappedFile, Part

FORMAT = 2
DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
ALIGNED = 64
"""The byte at which the first tensor begins."""
CHECKSUMS = "checksums"
"""The last tensor, int64: the CRC-32 of the header with its length, and of each other tensor. The header names it
twice, so that no flipped bit makes a file without checksums of it, as towers wrote them before."""
STATES = "blocks"
"""The tensor that is most of the file."""
VERIFIED = 256 << 20
"""Bytes of a file up to which all of it is verified when it is read; of a larger one all but the states."""


def write(path: str | PathLike[str], tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write tensors and what is said about them.

    Raises:
        OSError: the file cannot be written; an older file is unchanged.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    metadata = {"towers_index": str(FORMAT), "about": json.dumps(about), CHECKSUMS: "CRC-32"}
    header: dict[str, Any] = {"__metadata__": metadata}
    sums = torch.empty(len(tensors) + 1, dtype=torch.int64)
    at = 0
    for name, tensor in {**tensors, CHECKSUMS: sums}.items():
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNED)

    def write_all(partial: Path) -> None:
        with partial.open("wb") as file:
            sums[0] = _write(file, len(text).to_bytes(8, "little") + text)
            for number, tensor in enumerate(tensors.values(), 1):
                whole = tensor.contiguous()
                sums[number] = _write(file, _bytes(whole)) if whole.nbytes else 0
            file.write(_bytes(sums))

    replace(Path(path), write_all)


def _bytes(tensor: Tensor) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())


def _write(file: BinaryIO, part: bytes | ctypes.Array[ctypes.c_char]) -> int:
    file.write(part)
    return zlib.crc32(part)


def read(path: str | PathLike[str], *, verify: bool = False) -> tuple[dict[str, Tensor], dict[str, Any], MappedFile]:
    """The tensors, which are read from the file when they are used, what is said about them, and the file.

    Args:
        path: the file.
        verify: the states too are compared with their checksum, however large the file is.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no index, is damaged or cut off, or has a newer format; or it has no checksums to verify.
    """
    path = Path(path)
    file = path.open("rb")
    try:
        source = MappedFile(path, file)
        start = file.read(8)
        length = int.from_bytes(start, "little")
        size = source.size
        if len(start) < 8 or 8 + length > size:
            raise ValueError(f"{path}: is no index of towers, or is cut off")
        header = _header(path, file.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        try:
            about: dict[str, Any] = json.loads(header["__metadata__"]["about"])
            end = 8 + length + max(int(entry["data_offsets"][1]) for entry in entries.values())
        except (KeyError, TypeError, ValueError, IndexError):
            raise ValueError(f"{path}: is damaged: its header does not say what lies in it") from None
        if end != size:
            raise ValueError(f"{path}: is damaged or cut off: it has {size:,} bytes, and its header says {end:,}")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        try:
            tensors = {name: _tensor(mapped, 8 + length, entry) for name, entry in entries.items()}
            source.parts = _parts(tensors.pop(CHECKSUMS, None), header, 8 + length)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path}: is damaged: {error}") from None
        if not source.parts and verify:
            problem = "has no checksums, as an older towers wrote it"
            raise ValueError(f"{path}: {problem}; load it without verify, and save it")
        source.verify(keep=() if verify or size <= VERIFIED else (STATES,))
    except BaseException:
        file.close()
        raise
    return tensors, about, source


def _parts(sums: Tensor | None, header: Mapping[str, Any], start: int) -> dict[str, Part]:
    """The header and each tensor, and their checksums; of a file without checksums there are none."""
    if (sums is None) != (CHECKSUMS not in header["__metadata__"]):
        raise ValueError("its header is not what was written")
    if sums is None:
        return {}
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name not in ("__metadata__", CHECKSUMS)}
    ends = {"header": (0, start), **{name: (start + first, start + last) for name, (first, last) in spans.items()}}
    return {name: Part(*ends, sum) for (name, ends), sum in zip(ends.items(), sums.tolist(), strict=True)}


def check_blocks(blocks: Tensor, count: int, fields: int, dtype: torch.dtype) -> None:
    """Refuse blocks that do not have `count` places of `fields` numbers each.

    Raises:
        ValueError: they do not.
    """
    if blocks.shape != (-(-count // BLOCK), fields, BLOCK) or blocks.dtype != dtype:
        raise ValueError(f"it has {blocks.dtype} {tuple(blocks.shape)} for {count} items")


def check_axes(axes: Tensor, dense: int, dtype: torch.dtype) -> None:
    """Refuse axes that are not "dense axes".

    Raises:
        ValueError: they are not.
    """
    if axes.dim() != 2 or len(axes) != dense or axes.dtype != dtype:
        raise ValueError(f"it has axes {axes.dtype} {tuple(axes.shape)} for {dense} units")


def texts(about: Mapping[str, str]) -> dict[str, str]:
    """What an index says about itself, if all of it is texts.

    Raises:
        ValueError: a name or a value is no string.
    """
    found = dict(about)
    if any(type(part) is not str for entry in found.items() for part in entry):
        raise ValueError(f"Index.save: about is {found!r:.60}; expected texts by name")
    return found


def _header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header: object = json.loads(text)
        found = int(cast(dict[str, Any], header)["__metadata__"]["towers_index"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: is no index of towers") from None
    if found > FORMAT:
        raise ValueError(f"{path}: has format {found}; this version of towers reads up to {FORMAT}: update towers")
    return cast(dict[str, Any], header)


def _tensor(mapped: mmap.mmap, start: int, entry: Mapping[str, Any]) -> Tensor:
    dtype, shape = DTYPES[entry["dtype"]], [int(size) for size in entry["shape"]]
    first, last = (int(offset) for offset in entry["data_offsets"])
    count = (last - first) // dtype.itemsize
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=start + first).view(shape)
