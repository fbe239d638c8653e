"""Exposures in files: one module per format, and `mapreduce.io.files`, which knows them all.

A format is a module with ``recognizes(path)`` and ``read(path, **options)``, and ``write(exposure,
path, **options)`` if it can be written; its row in `mapreduce.io.files` makes it known.
"""
