"""Runs that are killed and started again: each must end as one that nobody disturbed.

`python -m tests.chaos` kills at random moments and at file operations, sends signals, and cuts the
power; the same seed plans the same kills.
"""
