"""Two speakers for two topics, two rounds, a judge each."""

from openai import OpenAI

client = OpenAI()


def speak(role: str, topic: str, heard: str) -> str:
    response = client.chat.completions.create(
        model="gpt-4o-mini", temperature=0.7,
        messages=[{"role": "system", "content": f"You argue {role} {topic}."},
                  {"role": "user", "content": "The other side said: " + heard}])
    return response.choices[0].message.content


def debate(topic: str) -> str:
    pro, con = "nothing yet", "nothing yet"
    for _ in range(2):
        pro, con = speak("for", topic, con), speak("against", topic, pro)
    return speak("as a judge of", topic, f"{pro}\n---\n{con}")


def main(place: str) -> list[str]:
    return [debate(f"{what} in {place}") for what in ("tolls", "trams")]
