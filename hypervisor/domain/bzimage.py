"""Unpacking: a compressed kernel, and the kernel inside a Linux bzImage.

A bzImage is a real-mode loader with a compressed ELF file behind it; where that lies is said in its
set-up header from protocol 2.08 on (Linux's Documentation/arch/x86/boot.rst: payload_offset,
payload_length). The payload ends with a 4-byte length, which decompressors stop in front of. A
kernel compressed as a whole with gzip is unpacked too, as Xen's toolstack does. Output is bounded,
so that a small file cannot fill the host's memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Protocol

from hypervisor.domain.elf import ImageError

MAX_UNPACKED_BYTES: Final = 1 << 30  # Xen's toolstack stops there as well

_BOOT_FLAG_AT: Final = 0x1FE
_BOOT_FLAG: Final = b"\x55\xaa"
_HEADER_AT: Final = 0x202
_HEADER: Final = b"HdrS"
_SETUP_SECTS_AT: Final = 0x1F1
_VERSION_AT: Final = 0x206
_PAYLOAD_AT: Final = 0x248
_PAYLOAD: Final = Struct("<II")  # offset behind the set-up sectors, length
_FIRST_VERSION: Final = 0x208
_SECTOR: Final = 512
_DEFAULT_SETUP_SECTS: Final = 4  # what a 0 means


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: memoryview, max_length: int, /) -> bytes: ...


_Maker = Callable[[], tuple[_Decompressor, type[Exception]]]


def unwrap(data: bytes) -> bytes | memoryview:
    """The ELF file in `data`; `data` itself when it is neither compressed nor a bzImage."""
    if data[:2] == b"\x1f\x8b":
        return _unpack(memoryview(data), "the kernel")
    if data[_HEADER_AT : _HEADER_AT + 4] != _HEADER:
        return data
    if data[_BOOT_FLAG_AT : _BOOT_FLAG_AT + 2] != _BOOT_FLAG:
        return data
    payload = _payload(data)
    return (
        payload if bytes(payload[:4]) == b"\x7fELF" else _unpack(payload, "the bzImage's payload")
    )


def _payload(data: bytes) -> memoryview:
    version = int.from_bytes(data[_VERSION_AT : _VERSION_AT + 2], "little")
    if version < _FIRST_VERSION:
        raise ImageError(
            f"this bzImage has boot protocol {version >> 8}.{version & 255:02}: "
            "the kernel inside can be found from 2.08 on"
        )
    if len(data) < _PAYLOAD_AT + _PAYLOAD.size:
        raise ImageError(f"truncated bzImage: it ends at {len(data):#x}, inside its header")
    offset, length = _PAYLOAD.unpack_from(data, _PAYLOAD_AT)
    start = ((data[_SETUP_SECTS_AT] or _DEFAULT_SETUP_SECTS) + 1) * _SECTOR + offset
    if start + length > len(data):
        raise ImageError(
            f"truncated bzImage: its payload reaches to {start + length:#x}, "
            f"the file ends at {len(data):#x}"
        )
    return memoryview(data)[start : start + length]


def _unpack(packed: memoryview, what: str) -> bytes:
    for magic, name, make in _FORMATS:
        if bytes(packed[: len(magic)]) == magic:
            return _run(make, packed, f"{what} ({name})")
    raise ImageError(f"{what} is in no known format: it begins with {packed[:6].hex(' ')}")


def _run(make: _Maker, packed: memoryview, what: str) -> bytes:
    decompressor, error_type = make()
    try:
        unpacked = decompressor.decompress(packed, MAX_UNPACKED_BYTES)
    except error_type as error:
        raise ImageError(f"{what} is damaged: {error}") from error
    if decompressor.eof:
        return unpacked
    if len(unpacked) >= MAX_UNPACKED_BYTES:
        raise ImageError(f"{what} unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
    raise ImageError(f"{what} is truncated: it breaks off after {len(unpacked):#x} bytes")


# Each module is imported when a file needs it: together they would cost every start 5 ms.


def _gzip() -> tuple[_Decompressor, type[Exception]]:
    import zlib

    return zlib.decompressobj(wbits=31), zlib.error


def _bzip2() -> tuple[_Decompressor, type[Exception]]:
    import bz2

    return bz2.BZ2Decompressor(), OSError


def _xz() -> tuple[_Decompressor, type[Exception]]:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ), lzma.LZMAError


def _lzma() -> tuple[_Decompressor, type[Exception]]:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_ALONE), lzma.LZMAError


def _zstd() -> tuple[_Decompressor, type[Exception]]:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise ImageError(
            "the kernel is packed with zstd: unpacking that needs the Python package 'zstandard'"
        ) from None
    return _Zstd(zstandard), zstandard.ZstdError


class _Zstd:
    """The `zstandard` package behind the interface that the standard library's modules share.

    Its decompressors know no bound, so they are fed little by little: a kilobyte can become 32 MiB.
    """

    def __init__(self, module: Any) -> None:
        self._stream = module.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        finished: bool = self._stream.eof
        return finished

    def decompress(self, data: memoryview, max_length: int, /) -> bytes:
        unpacked = bytearray()
        for at in range(0, len(data), 1024):
            if self._stream.eof or len(unpacked) >= max_length:
                break
            unpacked += self._stream.decompress(data[at : at + 1024])
        return bytes(unpacked)


def _unsupported(name: str) -> _Maker:
    def refuse() -> tuple[_Decompressor, type[Exception]]:
        raise ImageError(f"the kernel is packed with {name}, which cannot be unpacked here")

    return refuse


_FORMATS: Final[tuple[tuple[bytes, str, _Maker], ...]] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"BZh", "bzip2", _bzip2),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x5d\0\0", "lzma", _lzma),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\x89LZO", "lzo", _unsupported("LZO")),
    (b"\x02\x21\x4c\x18", "lz4", _unsupported("LZ4")),
)
