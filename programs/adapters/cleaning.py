"""What models write around their answers, and what is no answer at all: thoughts, end tokens, refusals, placeholders.

What holds here: only what stands at the beginning (thoughts) or at the end (end tokens) is taken off; never anything
from the middle of an answer.
"""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"\s*<(think|thinking|thought)>(.*?)</\1>\s*", re.DOTALL | re.IGNORECASE)
_OPEN_THOUGHT = re.compile(r"\s*<(?:think|thinking|thought)>", re.IGNORECASE)
_LATE_THOUGHT = re.compile(r"</(?:think|thinking|thought)>\s*", re.IGNORECASE)
_END_TOKEN = re.compile(r"(?:<\|[\w-]{1,30}\|>|</s>|<eos>|<end_of_turn>)\Z")
_MOST_END_TOKENS = 8
_REFUSAL = re.compile(
    r"\W{0,20}(?:(?:i['’]?m|i am) (?:very |so |really )?(?:sorry|afraid|unable|not able|an ai)\b|sorry\b|i apologi[sz]e"
    r"|unfortunately,? i\b|as an? (?:ai|artificial|large language|language model)"
    r"|i (?:can(?:no|['’])t|won['’]t|will not|do not|don['’]t|am not able to|must decline|cannot)\b[^.\n]{0,80}\b(?:"
    r"help|assist|answer|provide|comply|fulfil|do that|complete|comment|information|access|engage|generate|create"
    r"|determine|that)\b)", re.IGNORECASE)


class EndlessThought(ValueError):
    """A text that is thought from beginning to end."""


def cleaned(text: str, outputs: frozenset[str] = frozenset()) -> tuple[str, str]:
    """The answer without thoughts before it and end tokens after it, and the thoughts. `outputs` are names of fields,
    whose tags are no thoughts. Raises `EndlessThought`."""
    thoughts = []
    text = text.lstrip("\ufeff\u200b\u2060")
    if "<" in text:
        text = without_end_tokens(text)
        while (thought := _THOUGHT.match(text)) and thought.group(1).lower() not in outputs:
            thoughts.append(thought.group(2).strip())
            text = text[thought.end():]
        if not thoughts and not outputs & {"think", "thinking", "thought"}:
            if _OPEN_THOUGHT.match(text):
                raise EndlessThought("the model never came to the end of its thoughts")
            if late := _LATE_THOUGHT.search(text):  # the template had opened the thought already
                thoughts.append(text[:late.start()].strip())
                text = text[late.end():]
    return text, "\n\n".join(t for t in thoughts if t)


def without_end_tokens(text: str) -> str:
    """Without the marks of a chat template that a model wrote at the end."""
    for _ in range(_MOST_END_TOKENS):
        shorter = text.rstrip()
        if not (token := _END_TOKEN.search(shorter, max(0, len(shorter) - 40))):
            break
        text = shorter[:token.start()]
    return text


def is_refusal(text: str) -> bool:
    """Whether a text without any layout begins as models begin when they decline."""
    return bool(_REFUSAL.match(text[:300]))


def is_placeholder(name: str, title: str, text: str) -> bool:
    """Whether the model repeated the form instead of filling it in."""
    return text in ("...", "…", f"{{{name}}}", f"<{name}>", f"[{name}]", f"{{{title}}}", f"<{title}>", f"[{title}]",
                    "Not supplied for this example.")
