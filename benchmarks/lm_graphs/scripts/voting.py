"""Five samples of the same question, the most frequent answer wins."""

from collections import Counter

from openai import OpenAI

client = OpenAI()


def sample(question: str) -> str:
    response = client.chat.completions.create(
        model="gpt-4o-mini", temperature=0.9, messages=[{"role": "user", "content": question}])
    return response.choices[0].message.content


def main(claim: str) -> str:
    votes = [sample(f"{claim}? Answer true or false") for _ in range(5)]
    return Counter(votes).most_common(1)[0][0]
