"""The retrievers under the name that DSPy has: `dspy.retrievers.Embeddings`. They live in `retrieval`."""

from tracedsl.programs.retrieval.bm25 import BM25 as BM25
from tracedsl.programs.retrieval.retrieve import Retrieve as Retrieve
from tracedsl.programs.retrieval.vectors import Embeddings as Embeddings
from tracedsl.programs.retrieval.vectors import EmbeddingsWithScores as EmbeddingsWithScores
