"""Strategies, one a file: which points to measure next.

What holds here: this package loads none of them; `tracedsl.autotune` names them all.
"""
