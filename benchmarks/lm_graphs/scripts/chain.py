"""Draft, critique, rewrite, shorten: every step needs the one before."""

from openai import OpenAI

client = OpenAI()


def ask(prompt: str) -> str:
    response = client.chat.completions.create(
        model="gpt-4o-mini", temperature=0, messages=[{"role": "user", "content": prompt}])
    return response.choices[0].message.content


def main(topic: str) -> str:
    draft = ask(f"Write about {topic}.")
    critique = ask(f"Criticise: {draft}")
    better = ask(f"Rewrite {draft} after this critique: {critique}")
    return ask(f"Shorten: {better}")
