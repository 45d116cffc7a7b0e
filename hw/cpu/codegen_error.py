"""The error for loop nests that no code can be made of.

What holds here: such a nest is a mistake of whoever built it, never of the user's function.
"""

from __future__ import annotations

from tracedsl.diagnostics import TracedslError


def malformed(why: str) -> TracedslError:
    return TracedslError("H020", "no code can be made of this loop nest", why=why,
                         hint="this is a mistake of the schedule or the lowering; please report it with show('loops')")
