"""Summarise the parts of a long text, two by two, then the whole."""

from openai import OpenAI

client = OpenAI()
STYLE = "Which style is best for a summary of a report?"


def complete(prompt: str) -> str:
    response = client.chat.completions.create(
        model="gpt-4o-mini", temperature=0, messages=[{"role": "system", "content": "You summarise."},
                                                      {"role": "user", "content": prompt}])
    return response.choices[0].message.content.strip()


def main(text: str) -> str:
    style = complete(STYLE)
    parts = [complete(f"Summarise in this style: {style}\n\n{text} part {i}") for i in range(8)]
    pairs = [complete("Merge:\n" + a + "\n" + b) for a, b in zip(parts[::2], parts[1::2])]
    titles = [complete(f"A title for: {part}") for part in parts]  # noqa: F841 - people leave such calls behind
    return complete("Merge all:\n" + "\n".join(pairs))
