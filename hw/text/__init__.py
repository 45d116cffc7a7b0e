"""What generators of source text share: names, pieces of nests, expressions. Languages (Python, OpenCL C) stand apart.

What holds here: nothing knows a language; what differs enters as a `Dialect`.
"""
