"""Xen's public ABI as declared data: numbers, and layouts per guest width.

One module per public header of Xen 4.17, each name as the header spells it. Nothing here behaves,
and nothing imports anything of ours. tests/unit/abi/test_headers.py compares every size, offset
and number with the headers; what 4.17 does not declare has to be listed there by name, with its
source. So far nothing is: even the bounds of two-level x86_32 are still in the headers.
"""
