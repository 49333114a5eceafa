"""What a policy may be told."""

from __future__ import annotations

from typing import Any

import pytest

from hypervisor.sched.params import SchedParams, SchedParamsError, SchedSettings


def test_weight_is_one_and_nothing_is_borrowed_unless_told_otherwise() -> None:
    params = SchedParams()
    assert (params.weight, params.warp, params.warp_value_ns) == (1, False, 0)
    assert (params.warp_limit_ns, params.unwarp_ns, params.cap_percent) == (0, 0, 0)


def test_allowance_and_unit_are_xen_s_unless_told_otherwise() -> None:
    assert SchedSettings() == SchedSettings(ctx_allow_ns=5_000_000, mcu_ns=100_000)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weight": 0}, "weight is 0: it lies between 1 and 65535"),
        ({"weight": 65_536}, "weight is 65536: it lies between 1 and 65535"),
        ({"weight": 1.5}, "weight is 1.5: it is a whole number"),
        ({"weight": True}, "weight is True: it is a whole number"),
        ({"warp": 1}, "warp is 1: it is true or false"),
        ({"warp_value_ns": -1}, "warp_value_ns is -1: it lies between 0 and 4611686018427387904"),
        ({"warp_limit_ns": -1}, "warp_limit_ns is -1: it lies between 0 and 4611686018427387904"),
        ({"unwarp_ns": 1 << 63}, f"unwarp_ns is {1 << 63}: it lies between 0 and {1 << 62}"),
        ({"cap_percent": 6401}, "cap_percent is 6401: it lies between 0 and 6400"),
    ],
)
def test_parameter_out_of_range_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SchedParamsError) as refusal:
        SchedParams(**values)
    assert str(refusal.value) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mcu_ns": 0}, "mcu_ns is 0: it lies between 1 and 4611686018427387904"),
        ({"ctx_allow_ns": 9_999}, "ctx_allow_ns is 9999: it lies between 10000 and "),
        ({"ctx_allow_ns": "5 ms"}, "ctx_allow_ns is '5 ms': it is a whole number"),
    ],
)
def test_setting_out_of_range_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SchedParamsError) as refusal:
        SchedSettings(**values)
    assert str(refusal.value).startswith(said)
