"""Xen's public ABI as declared data: numbers, and layouts per guest width.

One module per public header of Xen 4.17, each name as the header spells it. Nothing here behaves,
and nothing imports anything of ours. What 4.17 no longer declares stands in `legacy`, with its
source.
"""
