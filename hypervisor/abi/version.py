"""public/version.h: what xen_version answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hypervisor.abi.layout import U32, CharArray, XenUlong, abi_struct


class XenverCmd(IntEnum):
    """XENVER_*."""

    VERSION = 0
    EXTRAVERSION = 1
    COMPILE_INFO = 2
    CAPABILITIES = 3
    CHANGESET = 4
    PLATFORM_PARAMETERS = 5
    GET_FEATURES = 6
    PAGESIZE = 7
    GUEST_HANDLE = 8
    COMMANDLINE = 9
    BUILD_ID = 10


@abi_struct(size=144)
@dataclass(slots=True)
class CompileInfo:
    """struct xen_compile_info."""

    compiler: CharArray(64)  # type: ignore[valid-type]
    compile_by: CharArray(16)  # type: ignore[valid-type]
    compile_domain: CharArray(32)  # type: ignore[valid-type]
    compile_date: CharArray(32)  # type: ignore[valid-type]


@abi_struct(size32=4, size64=8)
@dataclass(slots=True)
class PlatformParameters:
    """struct xen_platform_parameters."""

    virt_start: XenUlong


@abi_struct(size=8)
@dataclass(slots=True)
class FeatureInfo:
    """struct xen_feature_info."""

    submap_idx: U32
    submap: U32 = 0  # out: bits of features.Feature
