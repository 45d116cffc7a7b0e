"""Language-model programs: signatures, modules, adapters, model clients, evaluation, teleprompters.

What holds here: names, arguments and behaviour follow DSPy 3, so that porting is a changed import. Importing this
package loads nothing but this file; every public name is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracedsl.programs.adapters.baml import BAMLAdapter as BAMLAdapter
    from tracedsl.programs.adapters.base import Adapter as Adapter
    from tracedsl.programs.adapters.base import AdapterParseError as AdapterParseError
    from tracedsl.programs.adapters.chat import ChatAdapter as ChatAdapter
    from tracedsl.programs.adapters.json import JSONAdapter as JSONAdapter
    from tracedsl.programs.adapters.plain import PlainAdapter as PlainAdapter
    from tracedsl.programs.adapters.two_step import TwoStepAdapter as TwoStepAdapter
    from tracedsl.programs.adapters.xml import XMLAdapter as XMLAdapter
    from tracedsl.programs.choosing import AdapterChoice as AdapterChoice
    from tracedsl.programs.choosing import choose_adapter as choose_adapter
    from tracedsl.programs.context import TraceStep as TraceStep
    from tracedsl.programs.context import configure as configure
    from tracedsl.programs.context import context as context
    from tracedsl.programs.context import current_lm as current_lm
    from tracedsl.programs.context import current_rm as current_rm
    from tracedsl.programs.context import trace_calls as trace_calls
    from tracedsl.programs.estimate import Estimate as Estimate
    from tracedsl.programs.estimate import estimate as estimate
    from tracedsl.programs.evaluate import Evaluate as Evaluate
    from tracedsl.programs.evaluate import EvaluationResult as EvaluationResult
    from tracedsl.programs.example import Completions as Completions
    from tracedsl.programs.example import Example as Example
    from tracedsl.programs.example import Prediction as Prediction
    from tracedsl.programs.field_types.base import FieldType as FieldType
    from tracedsl.programs.field_types.base import Type as Type
    from tracedsl.programs.field_types.history import History as History
    from tracedsl.programs.field_types.media import Audio as Audio
    from tracedsl.programs.field_types.media import File as File
    from tracedsl.programs.field_types.media import Image as Image
    from tracedsl.programs.field_types.text import Code as Code
    from tracedsl.programs.field_types.text import Reasoning as Reasoning
    from tracedsl.programs.fields import InputField as InputField
    from tracedsl.programs.fields import OutputField as OutputField
    from tracedsl.programs.lm import make_lm as LM  # noqa: F401 - the name that DSPy has
    from tracedsl.programs.lm.accounts import BudgetExceeded as BudgetExceeded
    from tracedsl.programs.lm.accounts import budget as budget
    from tracedsl.programs.lm.accounts import track_usage as track_usage
    from tracedsl.programs.lm.base import LMError as LMError
    from tracedsl.programs.lm.base import LMRequest as LMRequest
    from tracedsl.programs.lm.base import LMResponse as LMResponse
    from tracedsl.programs.lm.base import Usage as Usage
    from tracedsl.programs.lm.limits import Limits as Limits
    from tracedsl.programs.lm.prices import Price as Price
    from tracedsl.programs.lm.recorded import RecordingLM as RecordingLM
    from tracedsl.programs.lm.recorded import ReplayLM as ReplayLM
    from tracedsl.programs.lm.scripted import OracleLM as OracleLM
    from tracedsl.programs.lm.scripted import ScriptedLM as ScriptedLM
    from tracedsl.programs.metrics import answer_exact_match as answer_exact_match
    from tracedsl.programs.metrics import exact_match as exact_match
    from tracedsl.programs.modules.best_of_n import BestOfN as BestOfN
    from tracedsl.programs.modules.chain_of_thought import ChainOfThought as ChainOfThought
    from tracedsl.programs.modules.code_act import CodeAct as CodeAct
    from tracedsl.programs.modules.knn import KNN as KNN
    from tracedsl.programs.modules.majority import majority as majority
    from tracedsl.programs.modules.module import Module as Module
    from tracedsl.programs.modules.multi_chain_comparison import MultiChainComparison as MultiChainComparison
    from tracedsl.programs.modules.parallel import Parallel as Parallel
    from tracedsl.programs.modules.predict import Predict as Predict
    from tracedsl.programs.modules.predict import PreparedCall as PreparedCall
    from tracedsl.programs.modules.program_of_thought import ProgramOfThought as ProgramOfThought
    from tracedsl.programs.modules.react import ReAct as ReAct
    from tracedsl.programs.modules.refine import Refine as Refine
    from tracedsl.programs.modules.rlm import RLM as RLM
    from tracedsl.programs.retrieval.bm25 import BM25 as BM25
    from tracedsl.programs.retrieval.embedder import embedder as Embedder  # noqa: F401 - the name that DSPy has
    from tracedsl.programs.retrieval.retrieve import Retrieve as Retrieve
    from tracedsl.programs.retrieval.stores import ChromaRetriever as ChromaRetriever
    from tracedsl.programs.retrieval.stores import FaissRetriever as FaissRetriever
    from tracedsl.programs.retrieval.stores import StoreRetriever as StoreRetriever
    from tracedsl.programs.retrieval.vectors import Embeddings as Embeddings
    from tracedsl.programs.retrieval.vectors import EmbeddingsWithScores as EmbeddingsWithScores
    from tracedsl.programs.sandbox.interpreter import CodeError as CodeError
    from tracedsl.programs.sandbox.interpreter import FinalOutput as FinalOutput
    from tracedsl.programs.sandbox.interpreter import Interpreter as Interpreter
    from tracedsl.programs.sandbox.python import PythonInterpreter as PythonInterpreter
    from tracedsl.programs.settings import settings as settings
    from tracedsl.programs.signature import Signature as Signature
    from tracedsl.programs.signature import ensure_signature as ensure_signature
    from tracedsl.programs.streaming import StatusMessage as StatusMessage
    from tracedsl.programs.streaming import StatusMessageProvider as StatusMessageProvider
    from tracedsl.programs.streaming import StreamListener as StreamListener
    from tracedsl.programs.streaming import StreamResponse as StreamResponse
    from tracedsl.programs.streaming import streamify as streamify
    from tracedsl.programs.teleprompters.auto import Auto as Auto
    from tracedsl.programs.teleprompters.base import Teleprompter as Teleprompter
    from tracedsl.programs.teleprompters.better_together import BetterTogether as BetterTogether
    from tracedsl.programs.teleprompters.bootstrap import BootstrapFewShot as BootstrapFewShot
    from tracedsl.programs.teleprompters.copro import COPRO as COPRO
    from tracedsl.programs.teleprompters.ensemble import Ensemble as Ensemble
    from tracedsl.programs.teleprompters.estimate import estimate_compilation as estimate_compilation
    from tracedsl.programs.teleprompters.finetune import BootstrapFinetune as BootstrapFinetune
    from tracedsl.programs.teleprompters.gepa import GEPA as GEPA
    from tracedsl.programs.teleprompters.infer_rules import InferRules as InferRules
    from tracedsl.programs.teleprompters.knn_few_shot import KNNFewShot as KNNFewShot
    from tracedsl.programs.teleprompters.labeled import LabeledFewShot as LabeledFewShot
    from tracedsl.programs.teleprompters.mipro import MIPROv2 as MIPROv2
    from tracedsl.programs.teleprompters.random_search import (
        BootstrapFewShotWithRandomSearch as BootstrapFewShotWithRandomSearch,
    )
    from tracedsl.programs.teleprompters.random_search import (
        BootstrapFewShotWithRandomSearch as BootstrapRS,  # noqa: F401 - the short name that DSPy has
    )
    from tracedsl.programs.teleprompters.simba import SIMBA as SIMBA
    from tracedsl.programs.tools.calls import ToolCallResults as ToolCallResults
    from tracedsl.programs.tools.calls import ToolCalls as ToolCalls
    from tracedsl.programs.tools.tool import Tool as Tool
else:
    from tracedsl._lazy import make_lazy

    make_lazy(__name__, {
        "adapters.base": "Adapter AdapterParseError",
        "adapters.baml": "BAMLAdapter",
        "adapters.chat": "ChatAdapter",
        "adapters.json": "JSONAdapter",
        "adapters.plain": "PlainAdapter",
        "adapters.two_step": "TwoStepAdapter",
        "adapters.xml": "XMLAdapter",
        "choosing": "AdapterChoice choose_adapter",
        "context": "TraceStep configure context current_lm current_rm trace_calls",
        "estimate": "Estimate estimate",
        "evaluate": "Evaluate EvaluationResult",
        "example": "Completions Example Prediction",
        "lm": "LM=make_lm",
        "lm.accounts": "BudgetExceeded budget track_usage",
        "lm.base": "LMError LMRequest LMResponse Usage",
        "lm.limits": "Limits",
        "lm.prices": "Price",
        "lm.recorded": "RecordingLM ReplayLM",
        "lm.scripted": "OracleLM ScriptedLM",
        "metrics": "answer_exact_match exact_match",
        "modules.best_of_n": "BestOfN",
        "modules.chain_of_thought": "ChainOfThought",
        "modules.code_act": "CodeAct",
        "modules.knn": "KNN",
        "modules.majority": "majority",
        "modules.module": "Module",
        "modules.multi_chain_comparison": "MultiChainComparison",
        "modules.parallel": "Parallel",
        "modules.predict": "Predict PreparedCall",
        "modules.program_of_thought": "ProgramOfThought",
        "modules.react": "ReAct",
        "modules.refine": "Refine",
        "modules.rlm": "RLM",
        "field_types.base": "FieldType Type",
        "field_types.history": "History",
        "field_types.media": "Audio File Image",
        "field_types.text": "Code Reasoning",
        "fields": "InputField OutputField",
        "retrieval.bm25": "BM25",
        "retrieval.embedder": "Embedder=embedder",
        "retrieval.retrieve": "Retrieve",
        "retrieval.stores": "ChromaRetriever FaissRetriever StoreRetriever",
        "retrieval.vectors": "Embeddings EmbeddingsWithScores",
        "sandbox.interpreter": "CodeError FinalOutput Interpreter",
        "sandbox.python": "PythonInterpreter",
        "settings": "settings",
        "signature": "Signature ensure_signature",
        "streaming": "StatusMessage StatusMessageProvider StreamListener StreamResponse streamify",
        "teleprompters.base": "Teleprompter",
        "teleprompters.auto": "Auto",
        "teleprompters.better_together": "BetterTogether",
        "teleprompters.copro": "COPRO",
        "teleprompters.estimate": "estimate_compilation",
        "teleprompters.finetune": "BootstrapFinetune",
        "teleprompters.gepa": "GEPA",
        "teleprompters.infer_rules": "InferRules",
        "teleprompters.mipro": "MIPROv2",
        "teleprompters.simba": "SIMBA",
        "teleprompters.bootstrap": "BootstrapFewShot",
        "teleprompters.ensemble": "Ensemble",
        "teleprompters.knn_few_shot": "KNNFewShot",
        "teleprompters.labeled": "LabeledFewShot",
        "teleprompters.random_search": "BootstrapFewShotWithRandomSearch "
                                       "BootstrapRS=BootstrapFewShotWithRandomSearch",
        "tools.calls": "ToolCallResults ToolCalls",
        "tools.tool": "Tool",
    })
