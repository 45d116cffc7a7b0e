"""Four extractions, each with a fallback where the endpoint fails."""

import openai
from openai import OpenAI

client = OpenAI()


def extract(field: str, document: str) -> str:
    try:
        response = client.chat.completions.create(
            model="gpt-4o-mini", temperature=0,
            messages=[{"role": "user", "content": f"{document}\nExtract the {field}."}])
        return response.choices[0].message.content
    except openai.APIError as error:
        return f"failed: {error}"


def main(document: str) -> dict[str, str]:
    return {field: extract(field, document) for field in ("name", "date", "amount", "place")}
