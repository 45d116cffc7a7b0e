"""A question to a small language model in this process, compiled by a teleprompter on the first call.

Run: python examples/read_dates.py       (the first run takes about half a minute, the next one loads the result)
"""

from tracedsl import program
from tracedsl.demo.answers import ReadDate, examples
from tracedsl.programs import BootstrapFewShot, Predict, exact_match

train = examples("train")


@program(trainset=train[:30], metric=exact_match("date"),
         teleprompter=BootstrapFewShot(max_bootstrapped_demos=4, max_labeled_demos=8))
def read_date(text):
    return Predict(ReadDate, max_tokens=24)(text=text).date


def main():
    print(read_date("The museum opened its doors on 12 August 1961."))
    print(read_date.explain())
    print(read_date.show("prompts"))


if __name__ == "__main__":
    main()
