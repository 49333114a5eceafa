"""What tests of guests are written with: scripted consoles, scenarios, Debian's kernels.

Nothing here is needed to run a guest. The command line borrows the console script for `--expect`
and `--send`; `hypervisor.testing.plugin` teaches pytest to collect `scenarios/*.toml`.
"""
