"""Ten programs as DSPy's users write them. Each takes the module that is imported as `dspy`, so that it can run with
either; what it returns is compared. The endpoint that answers is in `test_porting.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal


def signatures(dspy: Any, folder: Path) -> Any:
    class Classify(dspy.Signature):  # type: ignore[misc,name-defined]
        """Classify the sentiment of a sentence."""

        sentence: str = dspy.InputField()
        sentiment: Literal["positive", "negative"] = dspy.OutputField(desc="the feeling")
        confidence: float = dspy.OutputField()

    classify = dspy.Predict(Classify)
    made = classify(sentence="This book was super fun to read.")
    shorter = Classify.with_instructions("Be quick.").delete("confidence").append("why", dspy.OutputField())
    return (made.sentiment, made.confidence, list(Classify.input_fields), list(shorter.output_fields),
            shorter.instructions)


def chain_of_thought(dspy: Any, folder: Path) -> Any:
    qa = dspy.ChainOfThought("question -> answer: int")
    made = qa(question="What is 6 times 7?")
    return made.answer, bool(made.reasoning), list(made.keys())


def several_completions(dspy: Any, folder: Path) -> Any:
    qa = dspy.ChainOfThought("question -> answer", n=3, temperature=0.9)
    made = qa(question="Where is Paris?")
    compare = dspy.MultiChainComparison("question -> answer", M=3)
    attempts = [made.completions[i] for i in range(3)]
    return len(attempts), dspy.majority(made).answer, compare(attempts, question="Where is Paris?").answer


def react(dspy: Any, folder: Path) -> Any:
    def get_weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"The weather in {city} is sunny."

    agent = dspy.ReAct(signature="question -> answer", tools=[get_weather], max_iters=4)
    made = agent(question="What is the weather in Tokyo?")
    return made.answer, made.trajectory["tool_name_0"], made.trajectory["observation_0"], len(made.trajectory)


def module_save_load(dspy: Any, folder: Path) -> Any:
    class Rag(dspy.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.respond = dspy.ChainOfThought("context, question -> answer")

        def forward(self, question: str) -> Any:
            return self.respond(context=["Rome is in Italy."], question=question)

    rag = Rag()
    rag.respond.predict.demos = [dspy.Example(context=["x"], question="q", reasoning="r", answer="a")]
    rag.save(str(folder / "rag.json"))
    again = Rag()
    again.load(str(folder / "rag.json"))
    demo = again.respond.predict.demos[0]
    return again(question="Where is Rome?").answer, [n for n, _ in again.named_predictors()], demo["answer"]


def evaluate(dspy: Any, folder: Path) -> Any:
    devset = [dspy.Example(question=f"What is {n} times 7?", answer=str(7 * n)).with_inputs("question")
              for n in (2, 6, 9)]

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example.answer == prediction.answer)

    scorer = dspy.Evaluate(devset=devset, metric=metric, num_threads=2, display_progress=False, display_table=0)
    return round(float(scorer(dspy.Predict("question -> answer")).score), 1)


def bootstrap(dspy: Any, folder: Path) -> Any:
    trainset = [dspy.Example(question=f"What is {n} times 7?", answer=str(7 * n)).with_inputs("question")
                for n in range(2, 8)]
    teleprompter = dspy.BootstrapFewShot(metric=lambda e, p, trace=None: e.answer == p.answer,
                                         max_bootstrapped_demos=2, max_labeled_demos=0)
    compiled = teleprompter.compile(dspy.ChainOfThought("question -> answer"), trainset=trainset)
    return len(compiled.predict.demos), compiled(question="What is 6 times 7?").answer


def best_of_n_and_refine(dspy: Any, folder: Path) -> Any:
    def one_word(args: Any, prediction: Any) -> float:
        return 1.0 if len(prediction.answer.split()) == 1 else 0.0

    qa = dspy.ChainOfThought("question -> answer")
    best = dspy.BestOfN(module=qa, N=3, reward_fn=one_word, threshold=1.0)
    fine = dspy.Refine(module=qa, N=3, reward_fn=one_word, threshold=1.0)
    return best(question="Where is Paris?").answer, fine(question="Where is Rome?").answer


def parallel_and_batch(dspy: Any, folder: Path) -> Any:
    qa = dspy.Predict("question -> answer")
    examples = [dspy.Example(question=f"What is {n} times 7?").with_inputs("question") for n in (2, 3, 4)]
    both = dspy.Parallel(num_threads=3, disable_progress_bar=True)([(qa, e) for e in examples])
    batch = qa.batch(examples, num_threads=2, disable_progress_bar=True)
    return [p.answer for p in both], [p.answer for p in batch]


def knn(dspy: Any, folder: Path) -> Any:
    import numpy as np

    def vectors(texts: list[str]) -> Any:
        return np.array([[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], dtype=np.float32)

    trainset = [dspy.Example(question=q, answer="x").with_inputs("question") for q in ("zzz", "aaa", "mmm")]
    return [e.question for e in dspy.KNN(k=2, trainset=trainset, vectorizer=dspy.Embedder(vectors))(question="aam")]


def contexts_and_async(dspy: Any, folder: Path) -> Any:
    qa = dspy.Predict("question -> answer")

    async def several() -> list[str]:
        made = await asyncio.gather(*(qa.acall(question=f"What is {n} times 7?") for n in (2, 3)))
        return [p.answer for p in made]

    with dspy.context(lm=dspy.settings.lm):
        inside = qa(question="Where is Rome?").answer
    return inside, asyncio.run(several())


def streaming(dspy: Any, folder: Path) -> Any:
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[
        dspy.streaming.StreamListener(signature_field_name="answer")])

    async def read() -> str:
        async for piece in program(question="Where is Rome?"):
            if isinstance(piece, dspy.Prediction):
                return str(piece.answer)
        return ""

    return asyncio.run(read())


def embeddings_retrieval(dspy: Any, folder: Path) -> Any:
    import numpy as np

    corpus = ["aaa bbb", "zzz", "mmm nnn"]

    def vectors(texts: list[str]) -> Any:
        return np.array([[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], dtype=np.float32)

    search = dspy.retrievers.Embeddings(corpus=corpus, embedder=vectors, k=2)
    search.save(str(folder / "index"))
    again = dspy.retrievers.Embeddings.from_saved(str(folder / "index"), vectors)
    return search("zz").passages[0], again("mm").passages[0], again("mm").indices[:1]


def tools(dspy: Any, folder: Path) -> Any:
    def search(query: str, limit: int = 3) -> str:
        """Search for something."""
        return f"{query} x {limit}"

    tool = dspy.Tool(search)
    calls = dspy.ToolCalls.from_dict_list([{"name": "search", "args": {"query": "cats"}}])
    return (tool.name, tool.desc, tool.args["query"]["type"], tool(query="cats"),
            [c.execute([tool]) for c in calls.tool_calls])


def usage_and_history(dspy: Any, folder: Path) -> Any:
    with dspy.track_usage() as tracker:
        dspy.Predict("question -> answer")(question="What is 8 times 7?")
    return bool(tracker.get_total_tokens())


SCRIPTS = (signatures, chain_of_thought, several_completions, react, module_save_load, evaluate, bootstrap,
           best_of_n_and_refine, parallel_and_batch, knn, contexts_and_async, streaming, embeddings_retrieval, tools,
           usage_and_history)
