"""Functions with loops, branches and writes: syntax tree to statements (`tracedsl.ir.statements`)."""
