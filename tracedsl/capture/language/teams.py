"""Teams: model calls of a program that are made together, by one piece of work.

What holds here: a call in a team waits for the others until all places are taken, or until somebody needs a value that
depends on it. Then the team works, if enough came; a call that the team has no answer for is made as if there were no
team. So a team changes when calls are made and what is sent, and never whether a call gets its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tracedsl.capture.language.handles import Call, Owner, Step
from tracedsl.capture.language.model_calls import ModelCall
from tracedsl.programs.example import Prediction

# Takes the calls, whose inputs are settled; gives what each gets, None where it has to ask for itself.
Work = Callable[[Sequence[ModelCall]], Sequence[Prediction | BaseException | None]]


class CallTeam(Call):
    """The calls that wait, and then the one step that makes them.

    Args:
        work: makes the calls together. What it raises, each call meets by asking for itself.
        how: what becomes of a call that the team made, in one word.
        size: the number of places; None: whoever comes before a value is needed.
    """

    def __init__(self, run: Owner, work: Work, how: str, size: int | None = None) -> None:
        super().__init__(run, None, None)
        self.how, self.size = how, size
        self.members: list[ModelCall] = []
        self.closed = False
        self._work_together = work
        self._results: dict[ModelCall, Prediction | BaseException] = {}

    def fits(self, call: ModelCall, *, chained: bool = False) -> bool:
        """Whether the call can be made together with the members: it needs none of their values, or (`chained`) takes
        them without another call in between."""
        own = set[Step](self.members)
        first = {step for step in call.calls() if step in own}
        if first and not chained:
            return False
        waiting, seen = [step for step in call.calls() if step not in own], set[Step]()
        while waiting:
            step = waiting.pop()
            if step in own:
                return False
            if step not in seen:
                seen.add(step)
                waiting += (*step.calls(), *step.after)
        return not self.closed

    def take(self, call: ModelCall) -> None:
        """The call gets a place. Called before the call starts, in program order, for a call that fits."""
        self.members.append(call)
        call.team = self

    def holds(self, call: ModelCall) -> bool:
        if not self.closed and len(self.members) == self.size:
            self.close()
        return not self.closed

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if len(self.members) > 1 and self.size in (None, len(self.members)):
            for call in self.members:
                call.after.append(self)
            self.start()
        for call in self.members:
            call.start()

    def answer(self, call: ModelCall) -> Prediction | None:
        found = self._results.get(call)
        if isinstance(found, BaseException):
            raise found
        if found is not None:
            call.how = self.how
        return found

    # -- as a step -----------------------------------------------------------------------------------------------

    def inputs(self) -> Iterator[Step]:
        """What the members need from outside the team."""
        own = set[Step](self.members)
        return (step for call in self.members for step in call.inputs() if not own & _behind(step))

    def compute(self) -> None:
        results = self._work_together(self.members)
        self._results = {call: result for call, result in zip(self.members, results) if result is not None}

    def finish(self, value: object, error: BaseException | None) -> None:
        """Failing is no failure of the program: each call then asks for itself."""
        super().finish(None, None if isinstance(error, Exception) else error)


def _behind(step: Step) -> set[Step]:
    """The calls that a value comes from, and the step itself."""
    return {step, *step.calls()}
