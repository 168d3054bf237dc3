"""A small local text classifier whose confidence means what it says.

Word and character n-grams weighted by TF-IDF, one logistic regression for each head (`category`, `priority`, …) over
the same features, and probabilities calibrated on texts that the fitted model had not seen. It learns only from the
examples it is given, and it says little about texts that are unlike them.

Training needs scikit-learn (`pip install 'remit[demo]'`), which is loaded on first use; importing this module is free.

How a confidence comes about, and what was measured for it (3,431 real service-desk tickets, 60 % for training):

1. Five folds, each predicted by a model that was fitted, vocabulary included, on the other four. Exact duplicates of
   a text share a fold.
2. On these out-of-fold scores, one temperature and one offset per label are fitted by maximum likelihood with a mild
   prior (after the vector scaling of Guo et al. 2017). Log loss of category, ticket type and urgency, mean of five
   random splits: 0.475, 0.019, 0.119; a temperature alone 0.480, 0.038, 0.130; sigmoid 0.493, 0.018, 0.127; isotonic
   0.501, 0.028, 0.114. So it is the best in sum and never far off, not the best for every head.
3. `1 / (n + 1)` of the probability is spread over all labels: n examples can't support more certainty than that.
4. Unfamiliar texts are blended towards *every label equally likely*, since no calibration was measured on anything
   like them; see `Prediction.familiarity`. Without this, sentences in German, French, Spanish and Polish got a
   confidence of 0.6 to 0.8 from a model that had only read English.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remit.errors import RemitError
from remit.models.calibration import Scaling, Scored, accuracy, expected_calibration_error, fit_scaling, log_loss
from remit.values import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]
    Integers = NDArray[Any]

MAX_CHARACTERS = 6_000
"""Only this much of a text is read, so that no ticket can be made slow by its length."""

FOLDS = 5
"""How many parts the examples are cut into for calibration, and the fewest different texts that training takes."""

WORD_FLOOR = 2
"""A word or pair of words counts as a feature if at least so many training texts hold it."""

PIECE_FLOOR = 3
"""The same for pieces of words. Lower floors gained at most 1.4 % of log loss, on few texts, and cost time."""

PIECE_LENGTHS = (3, 4)
"""Characters in a piece, at least and at most. 2 to 4 was no better; 3 to 5 a hair better and a third slower."""

INVERSE_REGULARISATION = 3.0
"""The `C` of the logistic regression: a compromise, as heads differ (of 1, 3 and 10 each was the best for some)."""

TOLERANCE = 3e-4
"""Where its solver stops. At 1e-3 the log loss of two heads was 3 % and 8 % higher; smaller ones gained nothing."""

FAMILIAR_QUANTILE = 0.05
"""Texts below this quantile of what was seen out of fold count as unfamiliar."""

FAMILIAR_WORDS = 5
"""From so many different known words on, a text is never called unfamiliar for being short."""

_ALGORITHM = "tfidf-logistic-vector-scaling/1"


class TrainingRefused(RemitError):
    """The examples can't be learned from; the message says which and why."""

    code = "training_refused"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A text and the labels it is known to have, by head. A head without a label here is not learned from it."""

    text: str
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one head says of one text."""

    label: str
    confidence: float
    """The calibrated probability of `label`, above 0 and below 1."""
    ranking: tuple[tuple[str, float], ...]
    """Every label with its probability, most probable first; they sum to 1."""
    familiarity: float = 1.0
    """How far the text resembles what confidence was calibrated on, 0 to 1; 1 for all but the oddest of those.

    The share of the text's words (by length, each counted once) that the training texts had, relative to the
    5 % quantile of that share out of fold, times the same for the number of such words. It scales what the model
    says; the rest of the probability is spread evenly. A heuristic for "another language, or next to nothing to go
    by", not a probability.
    """


@dataclass(frozen=True, kw_only=True)
class Head:
    """One thing the classifier predicts, and how well it did out of fold, calibration included."""

    name: str
    labels: tuple[str, ...]
    examples: int
    accuracy: float
    log_loss: float
    """In nats."""
    ece: float
    """Expected calibration error, 0 to 1."""
    scored: tuple[Scored, ...] = ()
    """Each of these predictions, which is what the measures are made of."""


class TextClassifier:
    """A trained classifier; immutable, and safe to share between threads."""

    def __init__(self, vocabulary: _Vocabulary, heads: Sequence[_FittedHead], training_digest: str) -> None:
        """Use `train`."""
        import numpy as np

        self._vocabulary = vocabulary
        self._fitted = tuple(heads)
        self._weights = np.ascontiguousarray(np.vstack([head.weights for head in heads]).T)
        self._intercepts = np.concatenate([head.intercepts for head in heads])
        self.heads: Mapping[str, Head] = {head.summary.name: head.summary for head in heads}
        """What is predicted, by name, with the quality measured out of fold."""
        self.digest = training_digest
        """SHA-256 (hex) of the examples, in whatever order they came, the targets, every parameter and the version
        of scikit-learn: what a release names."""

    @classmethod
    def train(cls, examples: Iterable[Example], *, targets: Sequence[str]) -> TextClassifier:
        """Learn to predict the heads `targets`. The result doesn't depend on the order of the examples.

        Raises `TrainingRefused` if there are fewer than `FOLDS` different texts, or if a target has fewer than two
        labels or examples in fewer than `FOLDS` different texts.
        """
        threadpool_limits = _load("threadpoolctl", "threadpool_limits")
        # The limit below reaches only libraries that are already there.
        for module in ("scipy.optimize", "sklearn.feature_extraction.text", "sklearn.linear_model"):
            _load(module, "__name__")
        given = list(examples)
        _check(given, targets)
        items = sorted((_clean(example, targets) for example in given), key=_order)
        # One thread: on matrices of this size more of them only wait for each other, and sums would depend on them.
        with threadpool_limits(limits=1):
            return _train(items, tuple(dict.fromkeys(targets)))

    def predict(self, text: str) -> dict[str, Prediction]:
        """Predict every head for one text, of which `MAX_CHARACTERS` are read. Any string is accepted."""
        columns, values, familiarity = self._vocabulary.features(_clean_text(text))
        scores = values @ self._weights[columns] + self._intercepts
        answers: dict[str, Prediction] = {}
        start = 0
        for head in self._fitted:
            stop = start + len(head.summary.labels)
            answers[head.summary.name] = head.prediction(scores[start:stop], familiarity)
            start = stop
        return answers


@dataclass(frozen=True, kw_only=True)
class _FittedHead:
    """One head of the finished model: a row of weights per label, and its calibration."""

    summary: Head
    weights: Floats
    intercepts: Floats
    scaling: Scaling

    def prediction(self, scores: Floats, familiarity: float) -> Prediction:
        labels = self.summary.labels
        claimed: list[float] = self.scaling.probabilities(scores).tolist()
        # Ordered before blending, so that even a text of which nothing is known gets the likeliest label first.
        order = sorted(range(len(labels)), key=lambda place: -claimed[place])
        even = (1 - familiarity) / len(labels)
        ranking = tuple((labels[place], claimed[place] * familiarity + even) for place in order)
        label, confidence = ranking[0]
        return Prediction(label=label, confidence=confidence, ranking=ranking, familiarity=familiarity)


class _Vocabulary:
    """Cuts a text into features exactly as in training, without the cost of going through sparse matrices."""

    def __init__(self, blocks: Sequence[_Block], idf: Floats, floors: tuple[float, float]) -> None:
        """`floors`: the share of known words and their number below which a text counts as unfamiliar."""
        self._blocks = tuple(blocks)
        self._idf = idf
        self._share_floor, self._words_floor = floors

    def features(self, text: str) -> tuple[Integers, Floats, float]:
        """Columns of the weight matrix, their values, and how familiar the text is."""
        import numpy as np

        terms = [block.analyse(text) for block in self._blocks]
        columns: list[Integers] = []
        values: list[Floats] = []
        for block, found in zip(self._blocks, terms, strict=True):
            counts = Counter(column for term in found if (column := block.columns.get(term)) is not None)
            places = np.fromiter(counts, np.intp, len(counts))
            weights = (1 + np.log(np.fromiter(counts.values(), float, len(counts)))) * self._idf[places]
            columns.append(places)
            values.append(weights / (np.sqrt(weights @ weights) or 1.0))
        familiarity = self._familiarity(terms[0], self._blocks[0].columns)
        return np.concatenate(columns), np.concatenate(values), familiarity

    def _familiarity(self, terms: Iterable[str], known: Mapping[str, int]) -> float:
        words = {term for term in terms if " " not in term}
        found = [word for word in words if word in known]
        share = sum(map(len, found)) / max(sum(map(len, words)), 1)
        return min(1.0, share / self._share_floor) * min(1.0, len(found) / self._words_floor)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One kind of n-gram (words first, then pieces): how it is cut, and its columns in the weight matrix."""

    analyse: Callable[[str], list[str]]
    columns: Mapping[str, int]


# ---- training ------------------------------------------------------------------------------------------------------


def _load(module: str, name: str) -> Any:
    """The only door to scikit-learn and what comes with it, which have no type information."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise RemitError(
            "the text classifier needs `scikit-learn`; install it with `pip install 'remit[demo]'`",
            code="extra_missing",
        ) from error


def _clean_text(text: str) -> str:
    # One form for composed and decomposed letters.
    return _valid(unicodedata.normalize("NFC", text[:MAX_CHARACTERS]))


def _valid(text: str) -> str:
    # A lone surrogate can't be hashed, and says nothing anyway.
    return text if text.isascii() else text.encode(errors="replace").decode()


def _clean(example: Example, targets: Sequence[str]) -> Example:
    labels = {head: _valid(example.labels[head]) for head in targets if head in example.labels}
    return Example(text=_clean_text(example.text), labels=labels)


def _order(example: Example) -> tuple[str, tuple[tuple[str, str], ...]]:
    """By content hash, so that neighbours have nothing in common and equal texts are neighbours."""
    return digest(example.text), tuple(sorted(example.labels.items()))


def _check(examples: Sequence[Example], targets: Sequence[str]) -> None:
    if not targets:
        raise TrainingRefused("there is nothing to predict; name at least one head in `targets`")
    for head in targets:
        labels: defaultdict[str, set[str]] = defaultdict(set)
        for example in examples:
            if head in example.labels:
                labels[example.labels[head]].add(_clean_text(example.text))
        if not labels:
            raise TrainingRefused(
                f"no example has a label for head `{head}`; the heads with labels are {_known(examples)}"
            )
        if len(labels) == 1:
            only = next(iter(labels))
            raise TrainingRefused(f"head `{head}` has only the label `{only}`; it takes two to tell apart")
        texts = len(set[str]().union(*labels.values()))
        if texts < FOLDS:
            raise TrainingRefused(f"head `{head}` has {texts} different texts; training takes at least {FOLDS}")


def _known(examples: Sequence[Example]) -> str:
    names = sorted({head for example in examples for head in example.labels})
    return ", ".join(f"`{name}`" for name in names) or "none"


def _train(items: Sequence[Example], targets: tuple[str, ...]) -> TextClassifier:
    import numpy as np

    corpus = _Corpus([item.text for item in items])
    held_out = [corpus.fold == fold for fold in range(FOLDS)]
    parts = [corpus.part(np.flatnonzero(~chosen), np.flatnonzero(chosen)) for chosen in held_out]
    whole = corpus.part(np.arange(len(items)), np.arange(0))
    heads = [_fit_head(head, items, parts, whole) for head in targets]
    return TextClassifier(corpus.vocabulary(whole, parts), heads, _digest(items, targets))


def _digest(items: Sequence[Example], targets: tuple[str, ...]) -> str:
    return digest(
        {
            "algorithm": _ALGORITHM,
            "scikit-learn": _load("sklearn", "__version__"),
            "parameters": {
                "characters": MAX_CHARACTERS,
                "folds": FOLDS,
                "floors": [WORD_FLOOR, PIECE_FLOOR],
                "pieces": list(PIECE_LENGTHS),
                "regression": [INVERSE_REGULARISATION, TOLERANCE],
                "familiar": [FAMILIAR_QUANTILE, FAMILIAR_WORDS],
            },
            "targets": list(targets),
            "examples": [[item.text, dict(item.labels)] for item in items],
        }
    )


class _Corpus:
    """All training texts as counts of n-grams, to be weighted anew for each part that a model is fitted on."""

    def __init__(self, texts: Sequence[str]) -> None:
        import numpy as np

        vectorizer = _load("sklearn.feature_extraction.text", "CountVectorizer")
        makers = (
            vectorizer(ngram_range=(1, 2)),
            vectorizer(analyzer="char_wb", ngram_range=PIECE_LENGTHS, min_df=PIECE_FLOOR),
        )
        try:
            self._counts: tuple[Any, ...] = tuple(maker.fit_transform(texts).tocsr() for maker in makers)
        except ValueError as error:
            raise TrainingRefused("the texts have no words in common; there is nothing to learn from") from error
        self._analysers: tuple[Any, ...] = tuple(maker.build_analyzer() for maker in makers)
        self._names: tuple[Any, ...] = tuple(maker.get_feature_names_out() for maker in makers)
        self._is_word = np.asarray([" " not in name for name in self._names[0]])
        self._lengths = np.asarray([len(name) for name in self._names[0]], dtype=float) * self._is_word
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        self.fold: Integers = np.asarray([places[text] % FOLDS for text in texts])

    def part(self, rows: Integers, others: Integers) -> _Part:
        """The features of `rows`, with a vocabulary and weights of their own, and `others` seen through them."""
        import numpy as np

        hstack = _load("scipy.sparse", "hstack")
        kept: list[Integers] = []
        idfs: list[Floats] = []
        inside: list[Any] = []
        outside: list[Any] = []
        for counts, floor in zip(self._counts, (WORD_FLOOR, PIECE_FLOOR), strict=True):
            chosen = counts[rows]
            document_counts = np.bincount(chosen.indices, minlength=counts.shape[1])
            columns = np.flatnonzero(document_counts >= floor)
            idf = np.log((1 + len(rows)) / (1 + document_counts[columns])) + 1
            kept.append(columns)
            idfs.append(idf)
            inside.append(_weighted(chosen[:, columns], idf))
            outside.append(_weighted(counts[others][:, columns], idf))
        return _Part(
            rows=rows,
            others=others,
            inside=hstack(inside, format="csr"),
            outside=hstack(outside, format="csr"),
            columns=tuple(kept),
            idfs=tuple(idfs),
            known=self._known(others, kept[0]),
        )

    def _known(self, others: Integers, columns: Integers) -> tuple[Floats, Floats]:
        """For each of `others`: the share of its words that are among `columns`, and how many words that is."""
        import numpy as np

        present = self._counts[0][others] > 0
        chosen = np.zeros(len(self._lengths))
        chosen[columns] = 1.0
        total = present @ self._lengths
        share = np.divide(present @ (self._lengths * chosen), total, out=np.zeros(len(others)), where=total > 0)
        return share, present @ (self._is_word * chosen)

    def vocabulary(self, whole: _Part, parts: Sequence[_Part]) -> _Vocabulary:
        """The finished way from text to features, familiar with what the held-out folds looked like."""
        import numpy as np

        shares = np.concatenate([part.known[0] for part in parts])
        words = np.concatenate([part.known[1] for part in parts])
        floors = (
            max(float(np.quantile(shares, FAMILIAR_QUANTILE)), 0.05),
            min(max(float(np.quantile(words, FAMILIAR_QUANTILE)), 1.0), FAMILIAR_WORDS),
        )
        blocks: list[_Block] = []
        first = 0
        for analyse, names, columns in zip(self._analysers, self._names, whole.columns, strict=True):
            numbered = {str(name): first + place for place, name in enumerate(names[columns])}
            blocks.append(_Block(analyse=analyse, columns=numbered))
            first += len(columns)
        return _Vocabulary(blocks, np.concatenate(whole.idfs), floors)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Some rows of the corpus as a feature matrix, and the rows left out as seen by the same features."""

    rows: Integers
    others: Integers
    inside: Any
    outside: Any
    columns: tuple[Integers, ...]
    idfs: tuple[Floats, ...]
    known: tuple[Floats, Floats]


def _weighted(counts: Any, idf: Floats) -> Any:
    """Counts as TF-IDF: `(1 + ln count) * idf`, every row of length 1."""
    import numpy as np

    matrix = counts.astype(float)
    matrix.data = (1 + np.log(matrix.data)) * idf[matrix.indices]
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(matrix.indptr))
    return matrix


def _fit_head(name: str, items: Sequence[Example], parts: Sequence[_Part], whole: _Part) -> _FittedHead:
    import numpy as np

    labels = tuple(sorted({item.labels[name] for item in items if name in item.labels}))
    number = {label: place for place, label in enumerate(labels)}
    truth: Integers = np.asarray([number[item.labels[name]] if name in item.labels else -1 for item in items])
    scores = np.zeros((len(items), len(labels)))
    folds = np.zeros(len(items), dtype=int)
    for fold, part in enumerate(parts):
        weights, intercepts = _fit_regression(part, truth, len(labels))
        scores[part.others] = part.outside @ weights.T + intercepts
        folds[part.others] = fold
    labelled = truth >= 0
    scores, folds, seen = scores[labelled], folds[labelled], truth[labelled]
    if len(np.unique(folds)) < 2:
        raise TrainingRefused(f"head `{name}` has too few labelled texts to be calibrated; label more of the examples")
    weights, intercepts = _fit_regression(whole, truth, len(labels))
    judged = _judged(scores, seen, folds, labels)
    return _FittedHead(
        summary=Head(
            name=name,
            labels=labels,
            examples=len(judged),
            accuracy=accuracy(judged),
            log_loss=log_loss(judged),
            ece=expected_calibration_error(judged),
            scored=tuple(judged),
        ),
        weights=weights,
        intercepts=intercepts,
        scaling=fit_scaling(scores, seen),
    )


def _fit_regression(part: _Part, truth: Integers, label_count: int) -> tuple[Floats, Floats]:
    """Weights `(labels, features)` and intercepts `(labels,)` of a logistic regression on the labelled rows.

    A label that doesn't occur in the part gets no weights and the lowest intercept less one: rare, not impossible.
    """
    import numpy as np

    usable = truth[part.rows] >= 0
    present = truth[part.rows][usable]
    found = np.unique(present)
    weights = np.zeros((label_count, part.inside.shape[1]))
    intercepts = np.zeros(label_count)
    if len(found) > 1 and part.inside.shape[1]:
        model = _load("sklearn.linear_model", "LogisticRegression")(
            C=INVERSE_REGULARISATION, max_iter=1000, tol=TOLERANCE
        )
        model.fit(part.inside[usable], present)
        # Of two labels only the second is described; its log-odds are shared out between both.
        binary = len(found) == 2
        weights[found] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if binary else model.coef_
        intercepts[found] = np.asarray([-0.5, 0.5]) * model.intercept_ if binary else model.intercept_
    missing = np.setdiff1d(np.arange(label_count), found)
    intercepts[missing] = intercepts[found].min(initial=0.0) - 1
    return weights, intercepts


def _judged(scores: Floats, truth: Integers, folds: Integers, labels: Sequence[str]) -> list[Scored]:
    """Out-of-fold predictions against the truth, each fold calibrated on the other ones, so that none judges itself."""
    import numpy as np

    judged: list[Scored] = []
    for fold in np.unique(folds):
        inside = folds == fold
        shares = fit_scaling(scores[~inside], truth[~inside]).probabilities(scores[inside])
        for row, label in zip(shares, truth[inside], strict=True):
            chosen = int(row.argmax())
            score = Scored(
                confidence=float(row[chosen]),
                correct=bool(chosen == label),
                truth_probability=float(row[label]),
                label=labels[chosen],
                truth=str(labels[label]),
            )
            judged.append(score)
    return judged
