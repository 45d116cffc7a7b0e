"""Targets: each turns scheduled loop nests into something that runs. Imported as `tracedsl.hw`.

What holds here: a target is data and two functions (see `target`); nothing is loaded before it is asked for.
"""
