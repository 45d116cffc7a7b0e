"""The accelerator's compiler: tasks of a lowered graph to one instruction stream.

In order: `match` (what the accelerator can do of a stage), `epilogue` (what follows the sum, for the ALU and the
store), `tiles` (how it is cut, as a schedule), `emit` (the instructions of one task), `stream` (the order in which they
are dealt out, and their tokens), `segments` (which tasks run where), `place` (where tensors lie in the memory).

What holds here: a task whose result the accelerator cannot give bit for bit stays on the host, with the reason.
"""
