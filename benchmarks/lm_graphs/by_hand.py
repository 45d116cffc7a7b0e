"""The scripts by hand, for the shortest time: `asyncio.gather` wherever calls are independent. Same calls, same
results."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from openai import AsyncOpenAI

from benchmarks.lm_graphs.scripts import agent as agent_script
from benchmarks.lm_graphs.scripts import fan_out as fan_out_script
from benchmarks.lm_graphs.scripts import map_reduce as map_reduce_script
from benchmarks.lm_graphs.scripts import rag as rag_script
from benchmarks.lm_graphs.scripts import route as route_script

_clients: dict[Any, AsyncOpenAI] = {}


async def say(messages: list[Any], **settings: Any) -> str:
    client = _clients.setdefault(asyncio.get_running_loop(), AsyncOpenAI())
    given = {"temperature": 0, **settings}
    response = await client.chat.completions.create(model="gpt-4o-mini", messages=messages, **given)
    return response.choices[0].message.content or ""


async def ask(prompt: str, system: str | None = None, **settings: Any) -> str:
    start = [{"role": "system", "content": system}] if system is not None else []
    return await say([*start, {"role": "user", "content": prompt}], **settings)


async def fan_out(document: str) -> dict[str, str]:
    questions = fan_out_script.QUESTIONS
    return dict(zip(questions, await asyncio.gather(*(ask(f"{document}\n\n{q}") for q in questions))))


async def chain(topic: str) -> str:
    draft = await ask(f"Write about {topic}.")
    critique = await ask(f"Criticise: {draft}")
    better = await ask(f"Rewrite {draft} after this critique: {critique}")
    return await ask(f"Shorten: {better}")


async def map_reduce(text: str) -> str:
    def complete(prompt: str) -> Any:
        return ask(prompt, "You summarise.")

    style = (await complete(map_reduce_script.STYLE)).strip()
    tasks = [asyncio.ensure_future(complete(f"Summarise in this style: {style}\n\n{text} part {i}")) for i in range(8)]

    async def pair(a: Any, b: Any) -> str:
        return (await complete("Merge:\n" + (await a).strip() + "\n" + (await b).strip())).strip()

    async def title(part: Any) -> str:
        return await complete(f"A title for: {(await part).strip()}")

    titles = [asyncio.ensure_future(title(part)) for part in tasks]
    pairs = await asyncio.gather(*(pair(a, b) for a, b in zip(tasks[::2], tasks[1::2])))
    whole = (await complete("Merge all:\n" + "\n".join(pairs))).strip()
    await asyncio.gather(*titles)
    return whole


async def rag(question: str) -> str:
    policy = asyncio.ensure_future(ask("State our policy for citing sources."))
    language = asyncio.ensure_future(ask(f"Which language is this: {question}"))
    queries = await asyncio.gather(*(ask(f"Rewrite as a search query, way {i}: {question}") for i in range(3)))
    passages = [passage for query in queries for passage in rag_script.search(query)]
    grades = await asyncio.gather(*(
        ask(f"Passage: {p}\nDoes it help with: {question}? Answer yes or no") for p in passages))
    useful = [p for p, grade in zip(passages, grades) if grade == "yes"] or passages
    answer = await ask(f"{await policy}\nAnswer {question} from:\n" + "\n".join(useful))
    await language
    return await ask(f"Check against the policy {await policy}: {answer}")


async def multi_hop(subject: str) -> str:
    async def hops(question: str) -> str:
        definition = await ask("Define 'bridge entity' in one line.")
        first = await ask(f"{definition}\nFind the bridge entity of: {question}")
        second = await ask(f"Tell about {first}")
        return await ask(f"Answer {question} with {second}")

    answers = await asyncio.gather(*(hops(f"{w} of {subject}?") for w in ("Origin", "Size", "Owner", "Future")))
    return await ask("Compare: " + " / ".join(answers))


async def agent(goal: str) -> list[str]:
    assert agent_script.Agent
    moods = []
    rules = await ask("List the rules of good research.")
    messages = [{"role": "system", "content": rules}, {"role": "user", "content": goal}]
    for turn in range(4):
        thought = await say([*messages, {"role": "user", "content": f"Turn {turn}. Answer look, count or done"}])
        messages.append({"role": "assistant", "content": thought})
        if thought == "done":
            break
        moods.append(asyncio.ensure_future(ask(f"How confident is: {thought}")))
        messages.append({"role": "user", "content": f"{thought}: result {len(thought) * 7 + turn}"})
    steps = "\n".join(m["content"] for m in messages)
    found = await asyncio.gather(*(ask(f"{kind} of:\n{steps}") for kind in ("Summary", "Log", "Cost")), *moods)
    return list(found[:3])


async def voting(claim: str) -> str:
    votes = await asyncio.gather(*(ask(f"{claim}? Answer true or false", temperature=0.9) for _ in range(5)))
    return Counter(votes).most_common(1)[0][0]


async def route(shop: str) -> list[str]:
    async def one(mail: str) -> str:
        kind = await ask(f"{mail} Answer billing, returns or other", "You sort mail.")
        return await ask(mail, route_script.WAYS.get(kind, "Ask for more."))

    return list(await asyncio.gather(*(one(f"Mail {i} to {shop}: I have a question.") for i in range(6))))


async def helpers(country: str) -> dict[str, Any]:
    async def facts(city: str) -> dict[str, str]:
        names = ("river", "mayor", "founding year")
        found = dict(zip(names, await asyncio.gather(*(
            ask(f"The {name} of {city}?", "You are brief.", max_tokens=60) for name in names))))
        found["summary"] = await ask(f"Summarise {city}: {found['river']}, {found['mayor']}", "You write well.",
                                     max_tokens=60)
        return found

    cities = ("Aberg", "Belmar", "Corvin", "Dunholt")
    return dict(zip(cities, await asyncio.gather(*(facts(f"{city} in {country}") for city in cities))))


async def async_script(topic: str) -> list[str]:
    return list(await asyncio.gather(*(ask(f"{kind} of {topic}") for kind in ("pros", "cons", "risks", "costs"))))


async def careful(document: str) -> dict[str, str]:
    fields = ("name", "date", "amount", "place")
    found = await asyncio.gather(*(ask(f"{document}\nExtract the {f}.") for f in fields), return_exceptions=True)
    return {f: v if isinstance(v, str) else f"failed: {v}" for f, v in zip(fields, found)}


async def debate(place: str) -> list[str]:
    def speak(role: str, topic: str, heard: str) -> Any:
        return ask("The other side said: " + heard, f"You argue {role} {topic}.", temperature=0.7)

    async def one(topic: str) -> str:
        pro, con = "nothing yet", "nothing yet"
        for _ in range(2):
            pro, con = await asyncio.gather(speak("for", topic, con), speak("against", topic, pro))
        return await speak("as a judge of", topic, f"{pro}\n---\n{con}")

    return list(await asyncio.gather(*(one(f"{what} in {place}") for what in ("tolls", "trams"))))
