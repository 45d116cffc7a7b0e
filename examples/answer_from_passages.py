"""Retrieval-augmented answers: BM25 finds the passages, the model reads them.

Run: python examples/answer_from_passages.py     (extra `retrieval`; any model: TRACEDSL_LM=openai/gpt-4o-mini)
"""

from hops import reader

from tracedsl.programs import BM25, ChainOfThought, Module, Retrieve, configure


class AnswerFromPassages(Module):
    def __init__(self, k=3):
        self.retrieve = Retrieve(k=k)
        self.answer = ChainOfThought("context: list[str], question -> answer")

    def forward(self, question):
        return self.answer(context=self.retrieve(question).passages, question=question)


def main():
    reader.use()
    configure(rm=BM25(reader.passages()))
    program = AnswerFromPassages()
    for name in ("Mara Osei", "Nils Duarte"):
        made = program(question=f"Where was {name} born?")
        print(f"{name} was born in {made.answer}. ({made.reasoning})")


if __name__ == "__main__":
    main()
