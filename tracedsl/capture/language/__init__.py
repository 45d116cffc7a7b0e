"""Capture of functions that call language models: the function runs, its model calls give handles (`run.Run`).

What is where: `python_rewrite`, `python_expressions` and `python_rules` prepare the source; `run`, `run_core`,
`handles` and `model_calls` are the run; `recording` makes a graph of it; `dependencies` says what the function uses.
"""
