"""Field types that write and read their own values, alone and in signatures."""

from __future__ import annotations

import base64
import json
import wave
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracedsl.programs import Audio, Code, Example, FieldType, File, History, Image, Reasoning, Signature, Type
from tracedsl.programs.field_types.base import joined, parts_of
from tracedsl.programs.lm.base import MediaPart, TextPart
from tracedsl.programs.types import FieldError, role_of, validate

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 8


def test_an_image_is_made_from_what_people_have(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert Image(PNG).url == Image.from_path(tmp_path / "a.png").url == Image({"url": data}).url == data
    assert Image("https://x.org/a.png").format() == MediaPart("image", url="https://x.org/a.png")
    assert Image(PNG).format() == MediaPart("image", "image/png", base64.b64encode(PNG).decode())
    assert "bytes" in repr(Image(PNG)) and "iVBOR" not in repr(Image(PNG))
    for wrong in ("/etc/passwd", "file:///etc/passwd", 3):
        with pytest.raises(ValueError, match="image"):
            Image(wrong)
    with pytest.raises(ValueError, match="cannot read"):
        Image.from_path(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="http"):
        Image.from_url("file:///etc/passwd")


def test_an_image_is_made_from_pixels() -> None:
    pil = pytest.importorskip("PIL.Image")
    pixels = np.zeros((2, 3, 3), np.uint8)
    made = Image(pixels)
    assert made.url == Image(pil.fromarray(pixels)).url
    assert pil.open(BytesIO(base64.b64decode(made.url.split(",")[1]))).size == (3, 2)
    with pytest.raises(ValueError, match="array"):
        Image(np.zeros((2, 2, 7), np.float32))


def test_a_sound_is_made_from_samples_and_files(tmp_path: Path) -> None:
    made = Audio.from_array(np.array([0.0, 1.0, -1.0]), 8000)
    with wave.open(BytesIO(base64.b64decode(made.data))) as read:
        assert (read.getframerate(), read.getnchannels(), read.getnframes()) == (8000, 1, 3)
    (tmp_path / "a.wav").write_bytes(base64.b64decode(made.data))
    assert Audio.from_path(tmp_path / "a.wav") == made == Audio(base64.b64decode(made.data))
    assert made.format() == MediaPart("audio", "audio/wav", made.data)


def test_a_file_is_made_from_what_people_have(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    made = File.from_path(tmp_path / "a.pdf")
    assert made == File.from_bytes(b"%PDF-1.7", "a.pdf") and made.filename == "a.pdf"
    assert made.format() == MediaPart("file", "application/pdf", base64.b64encode(b"%PDF-1.7").decode(), name="a.pdf")
    for wrong in ({"filename": "x"}, "plain text"):
        with pytest.raises(ValueError, match="file"):
            validate(File, wrong)


@pytest.mark.parametrize("kind", [Image, Audio, File])
def test_what_a_model_writes_is_never_opened(kind: Any) -> None:
    with pytest.raises(ValueError, match="no "):
        kind.parse("https://x.org/a.png")


CODE = "def f():\n    return 1"


@pytest.mark.parametrize(("text", "expected"), [
    (CODE, CODE), (f"```python\n{CODE}\n```", CODE), (f"Here it is:\n\n```py\n{CODE}\n```\nEnjoy!", CODE),
    (f"```\n{CODE}\n```", CODE), (f"```python\n{CODE}", CODE), ("`x = 1`", "x = 1"), ("```x = 1```", "x = 1"),
    (f"```bash\npip install x\n```\nthen\n```python\n{CODE}\n```", CODE), (f"  ```python\n{CODE}\n  ```", CODE),
])
def test_code_loses_its_fence(text: str, expected: str) -> None:
    assert Code.parse(text) == expected and isinstance(Code.parse(text), Code)


@pytest.mark.parametrize("text", ["", "  ", "```python\na\n```\n```python\nb\n```", "```js\na\n```\n```ts\nb\n```"])
def test_code_that_is_not_clear_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="code"):
        Code.parse(text)


@given(st.text().filter(lambda t: "`" not in t and t.strip() and t == t.strip("\n") and "\r" not in t))
def test_code_reads_back(text: str) -> None:
    assert Code["rust"].parse(Code["rust"](text).format()) == text


def test_texts_with_a_meaning_are_strings() -> None:
    assert Code["java"] is Code["java"] and Code["java"].language == "java" and Code.language == "python"
    assert Reasoning("so") == "so" and Reasoning(content="so").content.upper() == "SO" and Code(code="1").code == "1"
    assert json.dumps({"r": Reasoning("so")}) == '{"r": "so"}' and Reasoning("a {}").format("b") == "a b"
    assert type(validate(Code["java"], "x")) is Code["java"]
    with pytest.raises(ValueError):
        validate(Reasoning, 3)


def test_field_types_have_names_in_text_signatures() -> None:
    made = Signature("image: Image, more: list[Image], past: Optional[dspy.History] -> "
                     "code: Code['sql'], why: Reasoning")
    assert [f.role for f in made.fields.values()] == ["media", "media", "history", "", "reasoning"]
    assert made.fields["code"].type is Code["sql"] and "Code['sql']" in made.signature
    assert role_of(dict[str, Image]) == ""
    assert all(isinstance(value, FieldType) for value in (Image(PNG), Code("x"), History(messages=[])))


def test_an_example_with_media_survives_saving() -> None:
    example = Example(image=Image(PNG), code=Code["sql"]("select 1"), past=History(messages=[{"q": "a"}]))
    back = Example.load(json.loads(json.dumps(example.dump())))
    assert validate(Image, back.image) == example.image and back.code == "select 1"
    assert validate(History, back.past) == example.past


class Event(Type):
    url: str

    def format(self) -> Any:
        return ["see ", {"type": "image_url", "image_url": {"url": self.url}}, TextPart(".")]


def test_a_type_of_ones_own_writes_parts() -> None:
    pieces = parts_of(Event(url="data:image/png;base64,AA==").format())
    assert joined(["Event: ", *pieces, "\n"]) == (
        TextPart("Event: see "), MediaPart("image", "image/png", "AA=="), TextPart(".\n"))
    assert joined(["a", "b"]) == "ab"
    assert Event.parse('{"url": "x"}') == Event(url="x")
    for wrong in ({"type": "video"}, 3):
        with pytest.raises(ValueError, match="format"):
            parts_of(wrong)


def test_inputs_take_what_makes_a_value() -> None:
    made = Signature("image: Image, code: Code -> answer")
    checked = made.check_inputs({"image": PNG, "code": "x"})
    assert checked["image"] == Image(PNG) and type(checked["code"]) is Code
    with pytest.raises(FieldError, match="image"):
        made.check_inputs({"image": 3, "code": "x"})
