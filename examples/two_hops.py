"""Questions that need two look-ups: the first passages tell what to look up next. Scored on 40 questions.

Run: python examples/two_hops.py     (needs the extra `retrieval`; any model: TRACEDSL_LM=openai/gpt-4o-mini)
"""

from hops import reader

from tracedsl import program, pure
from tracedsl.programs import BM25, Evaluate, Predict, answer_exact_match

corpus = BM25(reader.passages(), k=3)


@pure
def look_up(text):
    return corpus(text).passages


@program
def answer(question):
    person = Predict("question -> person")(question=question).person
    first = look_up(person)
    city = Predict("passages: list[str], question -> city")(passages=first, question=question).city
    second = look_up(city)
    return Predict("passages: list[str], question -> answer")(passages=first + second, question=question)


def main():
    reader.use()
    print(answer("On which river lies the city in which Mara Osei was born?").answer)
    print(Evaluate(devset=reader.questions(), metric=answer_exact_match)(answer))
    print(answer.show("graph"))


if __name__ == "__main__":
    main()
