"""An async script whose author awaited one call after the other."""

from openai import AsyncOpenAI


async def main(topic: str) -> list[str]:
    async with AsyncOpenAI() as client:
        found = []
        for kind in ("pros", "cons", "risks", "costs"):
            response = await client.chat.completions.create(
                model="gpt-4o-mini", temperature=0, messages=[{"role": "user", "content": f"{kind} of {topic}"}])
            found.append(response.choices[0].message.content)
        return found
