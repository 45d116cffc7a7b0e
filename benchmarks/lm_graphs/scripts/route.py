"""Classify six mails, then answer each the way its class asks for."""

from openai import OpenAI

client = OpenAI()
WAYS = {"billing": "Explain the bill.", "returns": "Explain how to send it back.", "other": "Be friendly."}


def chat(system: str, user: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return client.chat.completions.create(
        model="gpt-4o-mini", messages=messages, temperature=0).choices[0].message.content


def main(shop: str) -> list[str]:
    mails = [f"Mail {i} to {shop}: I have a question." for i in range(6)]
    kinds = [chat("You sort mail.", f"{mail} Answer billing, returns or other") for mail in mails]
    answers = []
    for mail, kind in zip(mails, kinds):
        if kind in WAYS:
            answers.append(chat(WAYS[kind], mail))
        else:
            answers.append(chat("Ask for more.", mail))
    return answers
