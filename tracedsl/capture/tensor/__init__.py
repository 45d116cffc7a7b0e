"""Capture of NumPy functions: a copy of the function runs once on symbolic arrays (`kernel.capture_kernel`).

What is where: `arguments` and `environment` say what a call and its surroundings are; `positions` and `calls` run the
copy; `arrays`, `numbers`, `indexing`, `writes` are the stand-ins; `elementwise`, `reductions`, `linear`, `shaping`,
`composed` the symbolic forms of NumPy functions; `outputs` what goes in and out, as plain data.
"""
