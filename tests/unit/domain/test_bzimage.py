"""Unpacking kernels: formats, bounds, damage."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import sys

import pytest

from hypervisor.domain import bzimage
from hypervisor.domain.bzimage import unwrap
from hypervisor.domain.elf import ImageError

ELF = b"\x7fELF" + bytes(range(256)) * 40


def make_bzimage(payload: bytes, *, setup_sects: int = 2, version: int = 0x20F) -> bytes:
    """A set-up header with `payload` behind it, at an odd offset."""
    head = bytearray((setup_sects or 4) * 512 + 512)
    head[0x1F1] = setup_sects
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    head[0x206:0x208] = struct.pack("<H", version)
    head[0x248:0x250] = struct.pack("<II", 0x111, len(payload))
    return bytes(head) + bytes(0x111) + payload + b"tail"


def with_length(packed: bytes) -> bytes:
    """A payload as the kernel's build makes it."""
    return packed + struct.pack("<I", len(ELF))


@pytest.mark.parametrize("data", [b"", b"text", ELF, bytes(4096)])
def test_other_files_are_left_alone(data: bytes) -> None:
    assert unwrap(data) == data


def test_gzipped_kernel_is_unpacked() -> None:
    assert unwrap(gzip.compress(ELF, mtime=0)) == ELF


@pytest.mark.parametrize(
    "payload",
    [
        ELF,
        with_length(gzip.compress(ELF, mtime=0)),
        with_length(bz2.compress(ELF)),
        with_length(lzma.compress(ELF)),
        with_length(lzma.compress(ELF, lzma.FORMAT_ALONE)),
    ],
    ids=["plain", "gzip", "bzip2", "xz", "lzma"],
)
def test_payload_is_unpacked(payload: bytes) -> None:
    assert unwrap(make_bzimage(payload)) == ELF


def test_no_setup_sectors_means_four() -> None:
    assert unwrap(make_bzimage(ELF, setup_sects=0)) == ELF


def test_zstd_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(
        ImageError,
        match=r"^the kernel is packed with zstd: "
        r"unpacking that needs the Python package 'zstandard'$",
    ):
        unwrap(make_bzimage(b"\x28\xb5\x2f\xfd" + bytes(20)))


class FakeZstd:
    """The two names that are used of the `zstandard` package; a 4-byte magic, then plain data."""

    ZstdError = OSError

    def __init__(self, size: int) -> None:
        self.missing = size + 4
        self.eof = False

    def ZstdDecompressor(self) -> FakeZstd:
        return self

    def decompressobj(self) -> FakeZstd:
        return self

    def decompress(self, data: memoryview) -> bytes:
        assert not self.eof
        start = 4 if self.missing == len(ELF) + 4 else 0
        part = bytes(data[start : self.missing])
        self.missing -= len(part) + start
        self.eof = self.missing == 0
        return part


def test_zstd_is_unpacked_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", FakeZstd(len(ELF)))
    assert unwrap(make_bzimage(with_length(b"\x28\xb5\x2f\xfd" + ELF))) == ELF


def test_truncated_zstd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", FakeZstd(len(ELF)))
    with pytest.raises(ImageError, match=r"^the bzImage's payload \(zstd\) is truncated: "):
        unwrap(make_bzimage(b"\x28\xb5\x2f\xfd" + ELF[:-1]))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            make_bzimage(ELF, version=0x207),
            r"this bzImage has boot protocol 2\.07: the kernel inside can be found from 2\.08 on",
        ),
        (make_bzimage(ELF)[:0x248], r"truncated bzImage: it ends at 0x248, inside its header"),
        (
            make_bzimage(ELF)[:0x900],
            r"truncated bzImage: its payload reaches to 0x2f15, the file ends at 0x900",
        ),
        (
            make_bzimage(b"??????"),
            r"the bzImage's payload is in no known format: it begins with 3f 3f 3f 3f 3f 3f",
        ),
        (
            make_bzimage(lzma.compress(ELF)[:-20]),
            r"the bzImage's payload \(xz\) is truncated: it breaks off after 0x\w+ bytes",
        ),
        (
            make_bzimage(lzma.compress(ELF)[:30] + bytes(400)),
            r"the bzImage's payload \(xz\) is damaged: .+",
        ),
        (gzip.compress(ELF, mtime=0)[:100], r"the kernel \(gzip\) is truncated: .+"),
        (gzip.compress(ELF, mtime=0)[:10] + b"\xff" * 20, r"the kernel \(gzip\) is damaged: .+"),
        (
            make_bzimage(b"\x89LZO" + bytes(20)),
            r"the kernel is packed with LZO, which cannot be unpacked here",
        ),
        (
            make_bzimage(b"\x02\x21\x4c\x18" + bytes(20)),
            r"the kernel is packed with LZ4, which cannot be unpacked here",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_refuses_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ImageError, match=f"^{sentence}$"):
        unwrap(data)


def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bzimage, "MAX_UNPACKED_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(2 << 20))
    with pytest.raises(ImageError, match=r"^the kernel \(gzip\) unpacks to more than 1 MiB$"):
        unwrap(bomb)
