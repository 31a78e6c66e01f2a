"""Damaged inputs for every reader: each must give its result or an `InputError`.

`python -m tests.fuzz` makes them from small valid files, the same ones for the same seed.
"""
