"""The tensor dialect's half of rewriting: graph passes, then lowering of a graph to fused tasks of tensor
expressions."""
