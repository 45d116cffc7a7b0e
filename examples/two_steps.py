"""Plain Python around language-model calls: independent calls overlap by themselves, equal ones are made once.

A scripted model stands in for a real one, and takes its time, so that the overlap can be seen without any download.

Run: python examples/two_steps.py
"""

import time

from tracedsl import program
from tracedsl.programs import Predict, ScriptedLM, context


def slow_model(request):
    time.sleep(0.2)
    return f"Answer: {len(request.messages[-1].content)} letters"


@program
def compare(first, second):
    a = Predict("text -> answer")(text=first)
    b = Predict("text -> answer")(text=second)
    return f"{a.answer} / {b.answer}"


def main():
    with context(lm=ScriptedLM(slow_model)):
        start = time.perf_counter()
        print(compare("one text", "and another one"))
        print(f"two calls of 0.2 s took {time.perf_counter() - start:.1f} s")
    print(compare.show("graph"))
    print(compare.explain())


if __name__ == "__main__":
    main()
