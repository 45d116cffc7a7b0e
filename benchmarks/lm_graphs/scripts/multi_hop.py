"""Two hops for each of four questions, then a comparison."""

from openai import OpenAI

client = OpenAI()


def ask(prompt: str) -> str:
    return client.chat.completions.create(
        model="gpt-4o-mini", temperature=0,
        messages=[{"role": "user", "content": prompt}]).choices[0].message.content


def two_hops(question: str) -> str:
    definition = ask("Define 'bridge entity' in one line.")
    first = ask(f"{definition}\nFind the bridge entity of: {question}")
    second = ask(f"Tell about {first}")
    return ask(f"Answer {question} with {second}")


def main(subject: str) -> str:
    answers = [two_hops(f"{what} of {subject}?") for what in ("Origin", "Size", "Owner", "Future")]
    return ask("Compare: " + " / ".join(answers))
