"""What a scheduling policy is told: about each domain, and about the machine.

One set for all policies, so that a domain can be described without knowing which one will serve it;
a policy reads what concerns it. Times are ns; 0 ns means "no limit" where there is a limit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

MAX_WEIGHT: Final = 65_535
MAX_CAP_PERCENT: Final = 6_400  # of one physical CPU
MAX_TIME_NS: Final = 1 << 62

DEFAULT_CTX_ALLOW_NS: Final = 5_000_000  # Xen's ctx_allow
DEFAULT_MCU_NS: Final = 100_000  # Xen's MCU
MIN_CTX_ALLOW_NS: Final = 10_000  # Xen's CTX_MIN: below that it would do nothing but switch


class SchedParamsError(ValueError):
    """A parameter that no policy can have; the message is one sentence: value and rule."""


def _require_integers(params: Any, but: str = "") -> None:
    for each in fields(params):
        value = getattr(params, each.name)
        if each.name != but and (not isinstance(value, int) or isinstance(value, bool)):
            raise SchedParamsError(f"{each.name} is {value!r}: it is a whole number")


def _require(params: Any, name: str, least: int, most: int) -> None:
    value = getattr(params, name)
    if not least <= value <= most:
        raise SchedParamsError(f"{name} is {value}: it lies between {least} and {most}")


@dataclass(frozen=True, slots=True)
class SchedParams:
    """What a domain is promised. Raises SchedParamsError for values out of range."""

    weight: int = 1  # its share of the CPU, relative to the others'
    warp: bool = False  # whether it may borrow against its own future
    warp_value_ns: int = 0  # by how much virtual time it is preferred while warped
    warp_limit_ns: int = 0  # how long it may run warped, 0 for ever
    unwarp_ns: int = 0  # how long it is then unwarped at least, 0 until it sleeps
    cap_percent: int = 0  # of one CPU, at most; 0 uncapped. BVT cannot do it, credit can

    def __post_init__(self) -> None:
        _require_integers(self, but="warp")
        if not isinstance(self.warp, bool):
            raise SchedParamsError(f"warp is {self.warp!r}: it is true or false")
        _require(self, "weight", 1, MAX_WEIGHT)
        for name in ("warp_value_ns", "warp_limit_ns", "unwarp_ns"):
            _require(self, name, 0, MAX_TIME_NS)
        _require(self, "cap_percent", 0, MAX_CAP_PERCENT)


DEFAULT_PARAMS: Final = SchedParams()


@dataclass(frozen=True, slots=True)
class SchedSettings:
    """What a policy does with all domains alike. Raises SchedParamsError, as SchedParams."""

    ctx_allow_ns: int = DEFAULT_CTX_ALLOW_NS  # BVT's C: real time kept beyond a fair switch
    mcu_ns: int = DEFAULT_MCU_NS  # BVT's minimum charging unit

    def __post_init__(self) -> None:
        _require_integers(self)
        _require(self, "ctx_allow_ns", MIN_CTX_ALLOW_NS, MAX_TIME_NS)
        _require(self, "mcu_ns", 1, MAX_TIME_NS)


DEFAULT_SETTINGS: Final = SchedSettings()
