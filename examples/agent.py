"""A ReAct agent with two tools: it looks passages up until it can answer, and its steps can be read.

Run: python examples/agent.py     (needs the extra `retrieval`; any model: TRACEDSL_LM=openai/gpt-4o-mini)
"""

from hops import reader

from tracedsl.programs import BM25, ReAct

corpus = BM25(reader.passages(), k=2)


def search(query: str) -> list[str]:
    """Find passages about people and cities.

    Args:
        query: a name, or a few words.
    """
    return corpus(query).passages


def count_letters(word: str) -> int:
    """How many letters a word has."""
    return len(word)


def main():
    reader.use()
    agent = ReAct("question -> answer", tools=[search, count_letters], max_iters=5)
    made = agent(question=reader.questions()[0].question)
    for name, value in made.trajectory.items():
        print(f"{name}: {value}")
    print(f"answer: {made.answer}")


if __name__ == "__main__":
    main()
