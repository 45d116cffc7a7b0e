"""Helpers of helpers: facts about four cities, each of three questions and a summary."""

from openai import OpenAI

client = OpenAI()


def request(messages: list) -> str:
    response = client.chat.completions.create(model="gpt-4o-mini", messages=messages, temperature=0, max_tokens=60)
    return response.choices[0].message.content


def ask(prompt: str, system: str = "You are brief.") -> str:
    return request([{"role": "system", "content": system}, {"role": "user", "content": prompt}])


def facts(city: str) -> dict:
    found = {name: ask(f"The {name} of {city}?") for name in ("river", "mayor", "founding year")}
    found["summary"] = ask(f"Summarise {city}: {found['river']}, {found['mayor']}", system="You write well.")
    return found


def main(country: str) -> dict:
    return {city: facts(f"{city} in {country}") for city in ("Aberg", "Belmar", "Corvin", "Dunholt")}
