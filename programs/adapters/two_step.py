"""Two steps: the model answers in its own words, a second one takes the fields out.

What holds here: the first prompt asks for no layout, which suits models that reason at length and keep to no form. An
extraction that fails is repeated once, as any answer is; the expensive first answer is not asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracedsl.programs.adapters.base import Adapter, AdapterParseError, Layout, TextAdapter
from tracedsl.programs.adapters.streams import FieldStream, NoStream
from tracedsl.programs.adapters.writing import Slot, type_hint, written
from tracedsl.programs.fields import InputField
from tracedsl.programs.signature import build

if TYPE_CHECKING:
    from tracedsl.programs.adapters.shapes import Found
    from tracedsl.programs.fields import Field
    from tracedsl.programs.lm.base import LM
    from tracedsl.programs.signature import Signature

_TEXT = "answer_text"


@dataclass(frozen=True)
class TwoStepAdapter(TextAdapter):
    """`TwoStepAdapter(extraction_model=LM("openai/gpt-4o-mini"))`

    Args:
        extraction_model: the model that takes the fields out of the first one's answer.
        extraction_adapter: its layout; by default the one that suits it.
    """

    extraction_model: LM
    extraction_adapter: Adapter | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        layout = self.extraction_adapter or self.extraction_model.default_adapter
        return f"two_step, {self.extraction_model.identity}, {layout.name}"

    def layout(self, signature: type[Signature]) -> Layout:
        return Layout(_system(signature), tuple(map(_slot, signature.input_fields.values())),
                      tuple(map(_slot, signature.output_fields.values())), between="\n")

    def find(self, signature: type[Signature], text: str) -> Found:
        raise ValueError("the first answer has no layout; it is read by the extraction model")

    def stream(self, signature: type[Signature]) -> FieldStream:
        return NoStream()

    def parse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        from tracedsl.programs.driving import drive

        return drive(self.aparse(signature, text))

    async def aparse(self, signature: type[Signature], text: str) -> dict[str, Any]:
        """Ask the extraction model; raises `AdapterParseError`, `LMError`."""
        from tracedsl.programs.context import listen_to_chunks
        from tracedsl.programs.modules.predict import Predict

        if not text.strip():
            raise AdapterParseError.of("two_step", signature, text, None, "there is nothing to extract from")
        extract = Predict(signature.memo("extraction", _extraction))
        adapter = self.extraction_adapter or self.extraction_model.default_adapter
        call = extract.prepare({_TEXT: text}, lm=self.extraction_model, adapter=adapter)
        try:
            with listen_to_chunks(None):  # its answer belongs to no predictor of the program
                made: Mapping[str, Any] = dict((await extract.aexecute(call)).items())
        except AdapterParseError as error:
            failed = AdapterParseError.of("two_step", signature, text, error.field, f"extraction: {error.reason}")
            failed.worth_asking_again = False
            raise failed from error
        return {name: made[name] for name in signature.output_fields}


def _extraction(signature: type[Signature]) -> type[Signature]:
    names = ", ".join(f"`{name}`" for name in signature.output_fields)
    text = InputField().field(_TEXT, str)
    return build([text, *signature.output_fields.values()],
                 f"The text holds the answer to a question. Take {names} out of it, as they stand there.", "Extraction")


def _slot(field: Field) -> Slot:
    return Slot(field.name, f"{field.title}:", written(field), broken=True)


def _system(signature: type[Signature]) -> str:
    lines = [signature.instructions]
    lines += [f"- {f.title}: {f.desc}" for f in signature.input_fields.values() if f.desc]
    lines += ["", "Answer in your own words. Your answer has to say:"]
    for f in signature.output_fields.values():
        hint = type_hint(f)
        lines.append(f"- {f.title}{f' ({hint})' if hint else ''}{f': {f.desc}' if f.desc else ''}")
    return "\n".join(lines)
