"""What endpoints say beside the text."""

from __future__ import annotations

from typing import Any

import pytest

from tracedsl.programs.lm.base import Usage
from tracedsl.programs.lm.responses import read_response
from tracedsl.programs.lm.wire import usage_of


@pytest.mark.parametrize(("details", "reused"), [
    ({"cached_tokens": 5}, 5), ({"cached_tokens": None}, 0), ({}, 0), (None, 0), ("much", 0)])
def test_tokens_that_the_prefix_cache_had(details: Any, reused: int) -> None:
    told = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": details}
    assert usage_of(told) == Usage(7, 3, 1, reused_tokens=reused)
    assert (usage_of(told) + usage_of(told)).reused_tokens == 2 * reused
    answer = read_response({"output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}],
                            "usage": {"input_tokens": 7, "output_tokens": 3, "input_tokens_details": details}})
    assert answer.usage == usage_of(told)
