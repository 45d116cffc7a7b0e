"""Capture: an ordinary Python function becomes a graph.

What holds here: `source` is shared by both dialects and knows neither arrays nor language models; `tensor/` and
`language/` hold what belongs to one dialect, and do not know each other.
"""
