"""Rewrite the question in three ways, look passages up, grade each, answer from them, check the answer."""

from openai import OpenAI

client = OpenAI()
PASSAGES = [f"Passage {i}: rivers, bridges, harvests and harbours of county {i}." for i in range(12)]


def llm(prompt: str) -> str:
    reply = client.chat.completions.create(
        model="gpt-4o-mini", temperature=0, messages=[{"role": "user", "content": prompt}])
    return reply.choices[0].message.content


def search(query: str) -> list[str]:
    start = sum(map(ord, query)) % (len(PASSAGES) - 2)
    return PASSAGES[start:start + 2]


def main(question: str) -> str:
    policy = llm("State our policy for citing sources.")
    queries = [llm(f"Rewrite as a search query, way {i}: {question}") for i in range(3)]
    passages = [passage for query in queries for passage in search(query)]
    grades = [llm(f"Passage: {p}\nDoes it help with: {question}? Answer yes or no") for p in passages]
    language = llm(f"Which language is this: {question}")  # noqa: F841 - people leave such calls behind
    useful = [p for p, grade in zip(passages, grades) if grade == "yes"] or passages
    answer = llm(f"{policy}\nAnswer {question} from:\n" + "\n".join(useful))
    return llm(f"Check against the policy {policy}: {answer}")
