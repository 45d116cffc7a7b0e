"""Capture: an ordinary Python function becomes a graph.

What holds here: `source` is shared by both dialects and knows neither arrays nor language models. The other modules
belong to one dialect each; none of them is imported by this file.
"""
