"""What turns texts into vectors: by default a local one that needs neither a model nor a network.

Vectors are kept as whole numbers: of length 2,048, each component rounded. By Cauchy and Schwarz no sum of products of
two of them, in whatever order it is formed, exceeds 2,048² and a little, and all whole numbers up to 2^24 are exact in
float32. So their products are exact, and the same on every machine, whatever its linear algebra does.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from remit.contracts.project import Project
from remit.errors import ConfigError, IdentityError, ToolFailed
from remit.identity.secrets import SecretStore
from remit.memory.text import ANALYSIS, words
from remit.tools.source import FileLoader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LENGTH = 2048
_MOST_DIMENSIONS = 8192
_AT_ONCE = 64
_TIMEOUT_S = 8.0


class Embedding(Protocol):
    """Turns texts into vectors. `name` says which one it is, in which version; another name is another embedding."""

    @property
    def name(self) -> str: ...

    @property
    def is_remote(self) -> bool:
        """Whether texts leave this machine."""
        ...

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """A vector for each text, all of one length. Raises `ToolFailed`."""
        ...


def require_numpy() -> None:
    """Raises `ConfigError` where numpy is missing."""
    try:
        import numpy as np
    except ImportError as error:
        raise ConfigError("memory needs more: `pip install 'remit[memory]'`") from error
    del np


def full_name(embedding: Embedding) -> str:
    """The name under which vectors are kept: that of the embedding, and how texts are cut."""
    return f"{embedding.name}/{ANALYSIS}"


def rounded(vectors: Sequence[Sequence[float]], count: int) -> NDArray[np.int16]:
    """The vectors as whole numbers of length 2,048; a vector of nothing stays that. Raises `ToolFailed`."""
    import numpy as np

    try:
        found = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ToolFailed("the embedding did not give vectors of one length", code="embedding_invalid") from error
    if found.ndim != 2 or found.shape[0] != count or not 1 <= found.shape[1] <= _MOST_DIMENSIONS or not np.isfinite(found).all():
        message = f"the embedding gave no {count} vectors of finite numbers, each of at most {_MOST_DIMENSIONS:,}"
        raise ToolFailed(message, code="embedding_invalid")
    lengths = np.sqrt((found * found).sum(axis=1, keepdims=True))
    return np.rint(found * (_LENGTH / np.where(lengths == 0, 1, lengths))).astype(np.int16)


class LocalEmbedding:
    """Words, pairs of words, and the parts of words, each hashed to a place of 256: near are texts that share them.

    It knows spellings and no meanings; inflected and compound words are near each other, synonyms are not.
    """

    name = "local-ngrams-1"
    is_remote = False
    dimensions = 256

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [self._vector(words(text)) for text in texts]

    def _vector(self, found: list[str]) -> Any:
        import numpy as np

        vector = np.zeros(self.dimensions)
        for word, times in sorted(Counter(found).items()):
            vector += _word_vector(word) * ((1 + math.log(times)) * min(1.0, len(word) / 6))
        for (one, two), times in sorted(Counter(pairwise(found)).items()):
            place, sign = _place(f"{one} {two}", self.dimensions)
            vector[place] += 0.3 * sign * (1 + math.log(times))
        return vector


@lru_cache(maxsize=20_000)
def _word_vector(word: str) -> NDArray[np.float64]:
    """A word, and its parts of three to five letters, at their places."""
    import numpy as np

    vector = np.zeros(LocalEmbedding.dimensions)
    place, sign = _place(word, LocalEmbedding.dimensions)
    vector[place] += sign
    edged = f"<{word}>"
    parts = [edged[at : at + size] for size in (3, 4, 5) for at in range(len(edged) - size + 1)]
    for part in parts:
        place, sign = _place(part, LocalEmbedding.dimensions)
        vector[place] += sign / math.sqrt(len(parts))
    return vector


def _place(feature: str, dimensions: int) -> tuple[int, int]:
    # A checksum alone is linear in its bits; multiplied, its upper bits depend on all of them.
    mixed = zlib.crc32(feature.encode()) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return mixed >> 40 & dimensions - 1, 1 if mixed >> 63 else -1


class FunctionEmbedding:
    """A function of the project: `embed.py:function`, from a list of texts to a list of vectors."""

    is_remote = False

    def __init__(self, reference: str, function: Callable[[list[str]], Any], digest: str) -> None:
        self.name = f"{reference}@{digest[:12]}"
        self._reference = reference
        self._call = function

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        try:
            return self._call(list(texts))
        except Exception as error:
            message = f"embedding `{self._reference}` broke: {type(error).__name__}"
            raise ToolFailed(message, code="embedding_invalid") from error


class RemoteEmbedding:
    """A server that speaks OpenAI's `POST /embeddings`."""

    is_remote = True

    def __init__(self, *, url: str, model: str, key: str | None) -> None:
        self.name = f"{model}@{url}"
        self._url = url.rstrip("/") + "/embeddings"
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        import httpx

        found: list[Sequence[float]] = []
        with httpx.Client(timeout=_TIMEOUT_S, headers=self._headers) as client:
            for at in range(0, len(texts), _AT_ONCE):
                try:
                    answer = client.post(self._url, json={"model": self._model, "input": list(texts[at : at + _AT_ONCE])})
                    answer.raise_for_status()
                except httpx.HTTPStatusError as error:
                    status = error.response.status_code
                    busy = status == 429 or status >= 500
                    message = f"the embedding's server answered {status}"
                    raise ToolFailed(message, code="embedding_unavailable", retryable=busy) from error
                except httpx.HTTPError as error:
                    message = "the embedding's server can't be reached"
                    raise ToolFailed(message, code="embedding_unavailable", retryable=True) from error
                found += _vectors_of(answer.content, len(texts[at : at + _AT_ONCE]))
        return found


def _vectors_of(answer: bytes, count: int) -> list[list[float]]:
    """The vectors of an answer, in the order of the texts."""
    import msgspec

    try:
        data: list[Any] = msgspec.json.decode(answer)["data"]
        placed = {int(one["index"]): [float(number) for number in one["embedding"]] for one in data}
        return [placed[at] for at in range(count)]
    except (msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
        message = "the embedding's server answered, but not as its interface has it"
        raise ToolFailed(message, code="embedding_invalid") from error


def embedding_of(project: Project, secrets: SecretStore) -> Embedding:
    """What `[memory] embedding` names. Raises `ConfigError`."""
    require_numpy()
    named = project.memory.embedding if project.memory is not None else "local"
    if named == "local":
        return LocalEmbedding()
    kind, _, name = named.partition(":")
    if kind == "model":
        return _of_model(project, secrets, name)
    if kind.endswith(".py") and name.isidentifier():
        return _of_file(project, kind, name)
    raise ConfigError(f"`memory.embedding` is `{named}`; write `local`, `embed.py:function` or `model:<name>`")


def is_remote(project: Project) -> bool:
    """Whether the embedding that a project names sends texts away; asked without loading it."""
    return project.memory is not None and project.memory.embedding.startswith("model:")


def _of_model(project: Project, secrets: SecretStore, name: str) -> Embedding:
    section = project.models.get(name)
    if section is None or section.base_url is None or section.model is None:
        raise ConfigError(
            f"`memory.embedding` names model `{name}`; declare `[models.{name}]` with `kind = \"llm\"`, `model` and `base_url`"
        )
    try:
        key = secrets.resolve("model", section.secret).reveal() if section.secret else None
    except IdentityError as error:
        raise ConfigError(error.message, code=error.code) from error
    return RemoteEmbedding(url=section.base_url, model=section.model.partition(":")[2] or section.model, key=key)


def _of_file(project: Project, entry: str, name: str) -> Embedding:
    path = project.path(entry)
    loader = FileLoader(f"remit_embedding_{path.stem}", str(path), entry)
    module = module_from_spec(ModuleSpec(loader.name, loader, origin=str(path)))
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{entry}: can't be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigError(f"{entry}: there is no function `{name}`, which `memory.embedding` names")
    return FunctionEmbedding(f"{entry}:{name}", found, loader.digest)
