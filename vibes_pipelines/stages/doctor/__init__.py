"""The doctor: every check of a set-up, independent of the others, each with its cure.

One file per subject; `registry` lists them all, `findings` says what a check is, `run` runs them.
"""
