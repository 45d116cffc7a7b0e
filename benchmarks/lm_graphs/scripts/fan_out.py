"""Ask the same document eight questions."""

from openai import OpenAI

client = OpenAI()
QUESTIONS = ["Who?", "What?", "When?", "Where?", "Why?", "How?", "How much?", "What next?"]


def main(document: str) -> dict[str, str]:
    answers = {}
    for question in QUESTIONS:
        response = client.chat.completions.create(
            model="gpt-4o-mini", temperature=0,
            messages=[{"role": "user", "content": f"{document}\n\n{question}"}])
        answers[question] = response.choices[0].message.content
    return answers
