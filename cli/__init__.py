"""The command line: parse, call the core, render.

Every subcommand is a module of its own that is imported only when it is asked for, so that
`ring1 --help` never loads the engine. `rich` and `click` stay in this package.
"""
