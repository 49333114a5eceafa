"""The CPU manuals as code: page-table entries, descriptors, flags, decoding.

Facts of the x86 architecture only (Intel SDM volumes 2 and 3, AMD APM volume 2); nothing here knows
Xen, the engine, or a machine's memory.
"""
