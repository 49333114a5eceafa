"""A domain: what it is, and how one comes to be out of a kernel file.

`image` reads kernels, `layout` plans a start of day, `builder` writes it into frames; `domain` is
the state that lives from then on. Nothing is imported here: a user of one part pays for one.
"""
