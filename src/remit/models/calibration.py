"""Does a confidence of 0.8 come true four times in five? The measures that tell, a plot for the terminal, the remedy.

The measures read predictions whose truth is known (`Scored`) and need no numerical library. `fit_scaling`, the remedy,
loads NumPy and SciPy when it is called.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]
    Integers = NDArray[Any]

BINS = 15
"""Equal-width bins of the expected calibration error; the number that the literature reports with."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Where coverage is looked at, if the caller doesn't say."""

PROBABILITY_FLOOR = 1e-6
"""What the log loss takes for a truth that was given no probability at all: one such miss costs 13.8 nats, not infinity."""

_BAR_CELLS = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One prediction held against the truth. Probabilities lie in 0 to 1."""

    confidence: float
    """The probability given to the label that was chosen."""
    correct: bool
    """Whether that label was the true one."""
    truth_probability: float
    """The probability given to the true label; 0 where the model doesn't know that label."""
    label: str = ""
    """The label that was chosen, and below the true one; empty where nobody asks which they were."""
    truth: str = ""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The predictions whose confidence lies in `low` to `high` (the upper end belongs to the next bin, except 1)."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean confidence in the bin; 0 if it is empty."""
    accuracy: float
    """Share of the bin that was right; 0 if it is empty."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What remains when only predictions with at least this confidence are acted on."""

    threshold: float
    kept: int
    share: float
    """`kept` as a share of all predictions."""
    accuracy: float | None
    """Share of the kept that was right; `None` if nothing was kept."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How good, and how honest, a set of predictions is."""

    count: int
    accuracy: float
    confidence: float
    """Mean confidence: above `accuracy` is boasting, below is modesty."""
    log_loss: float
    """Mean of `-ln(probability of the truth)`, in nats."""
    ece: float
    """Expected calibration error, 0 to 1, over `bins`."""
    bins: tuple[Bin, ...]
    coverage: tuple[Coverage, ...]


def score(ranking: Iterable[tuple[str, float]], truth: str) -> Scored:
    """Hold a ranking of `(label, probability)`, most probable first, against the true label.

    Raises `ValueError` for an empty ranking.
    """
    pairs = tuple(ranking)
    if not pairs:
        raise ValueError("a ranking needs at least one label")
    label, confidence = pairs[0]
    probability = dict(pairs).get(truth, 0.0)
    return Scored(confidence=confidence, correct=label == truth, truth_probability=probability, label=label, truth=truth)


def report(scored: Sequence[Scored], *, bins: int = BINS, thresholds: Sequence[float] = THRESHOLDS) -> Report:
    """All measures at once. Raises `ValueError` if there is nothing to measure."""
    return Report(
        count=len(scored),
        accuracy=accuracy(scored),
        confidence=math.fsum(item.confidence for item in scored) / len(scored),
        log_loss=log_loss(scored),
        ece=expected_calibration_error(scored, bins=bins),
        bins=reliability(scored, bins=bins),
        coverage=tuple(coverage(scored, threshold) for threshold in thresholds),
    )


def accuracy(scored: Sequence[Scored]) -> float:
    """Share of the predictions that were right. Raises `ValueError` if there are none."""
    return sum(item.correct for item in _some(scored)) / len(scored)


def log_loss(scored: Sequence[Scored]) -> float:
    """Mean of `-ln(probability of the truth)` in nats, probabilities below `PROBABILITY_FLOOR` raised to it.

    Raises `ValueError` if there are no predictions.
    """
    return -math.fsum(math.log(max(item.truth_probability, PROBABILITY_FLOOR)) for item in _some(scored)) / len(scored)


def reliability(scored: Sequence[Scored], *, bins: int = BINS) -> tuple[Bin, ...]:
    """Sort predictions by confidence into `bins` bins of equal width, empty ones included, lowest first."""
    if bins < 1:
        raise ValueError("a reliability table needs at least one bin")
    members: list[list[Scored]] = [[] for _ in range(bins)]
    for item in scored:
        members[min(max(int(item.confidence * bins), 0), bins - 1)].append(item)
    return tuple(
        Bin(
            low=index / bins,
            high=(index + 1) / bins,
            count=len(inside),
            confidence=math.fsum(item.confidence for item in inside) / len(inside) if inside else 0.0,
            accuracy=sum(item.correct for item in inside) / len(inside) if inside else 0.0,
        )
        for index, inside in enumerate(members)
    )


def expected_calibration_error(scored: Sequence[Scored], *, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over equal-width bins, weighted by their counts (0 to 1).

    As in Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017). It is biased upwards when
    there are few predictions: even a perfect model shows about 0.01 on a thousand. Raises `ValueError` if there are
    none.
    """
    total = len(_some(scored))
    return math.fsum(
        inside.count / total * abs(inside.accuracy - inside.confidence) for inside in reliability(scored, bins=bins)
    )


def confusion(scored: Iterable[Scored]) -> dict[str, dict[str, int]]:
    """How often each true label was taken for which: truth → chosen → count, only what occurs, by name."""
    counts = Counter((item.truth, item.label) for item in scored)
    table: dict[str, dict[str, int]] = {}
    for (truth, label), count in sorted(counts.items()):
        table.setdefault(truth, {})[label] = count
    return table


def coverage(scored: Sequence[Scored], threshold: float) -> Coverage:
    """Share of the predictions with a confidence of at least `threshold`, and how many of those were right.

    Raises `ValueError` if there are no predictions.
    """
    kept = [item for item in _some(scored) if item.confidence >= threshold]
    return Coverage(
        threshold=threshold,
        kept=len(kept),
        share=len(kept) / len(scored),
        accuracy=sum(item.correct for item in kept) / len(kept) if kept else None,
    )


def reliability_plot(bins: Sequence[Bin]) -> str:
    """A reliability diagram as lines of text, one a bin that holds anything, without a final newline.

    The bar is the accuracy of the bin; `│` stands where its mean confidence lies. A bar that ends at its mark is
    honest, one that stops short of it is overconfident.
    """
    rows = [_row(inside) for inside in bins if inside.count]
    if not rows:
        return "no predictions"
    head = f"{'confidence':<11} {'0':<{_BAR_CELLS - 1}}1 {'count':>7} {'mean':>6} {'right':>6}"
    return "\n".join([head, *rows])


def _row(inside: Bin) -> str:
    mark = min(int(inside.confidence * _BAR_CELLS), _BAR_CELLS - 1)
    bar = _bar(inside.accuracy)
    drawn = f"{bar[:mark]}│{bar[mark + 1 :]}"
    label = f"{inside.low:.2f}–{inside.high:.2f}"
    return f"{label:<11} {drawn} {inside.count:>7,} {inside.confidence:>6.3f} {inside.accuracy:>6.3f}"


def _bar(share: float) -> str:
    eighths = round(min(max(share, 0.0), 1.0) * _BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR_CELLS)


def _some(scored: Sequence[Scored]) -> Sequence[Scored]:
    if not scored:
        raise ValueError("there are no predictions to measure")
    return scored


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Turns raw scores of labels into probabilities: `softmax(temperature * scores + offsets)`, a little spread out."""

    temperature: float
    offsets: Floats
    """One a label."""
    spread: float
    """How much of the probability is shared out evenly among all labels, 0 to 1."""

    def probabilities(self, scores: Floats) -> Floats:
        """Scores of shape `(…, labels)` as probabilities of the same shape; the last axis sums to 1."""
        shares = _softmax(self.temperature * scores + self.offsets)
        return shares * (1 - self.spread) + self.spread / shares.shape[-1]


def fit_scaling(scores: Floats, truth: Integers) -> Scaling:
    """The temperature and offsets under which the truth was most likely, held near 1 and 0 where there is little data.

    `scores` has the shape `(texts, labels)` and must come from models that had not seen these texts; `truth` holds the
    column of the true label for each text. This is vector scaling (Guo et al. 2017) with one common temperature and
    normal priors: standard deviation 0.5 on the temperature's logarithm, 1 on each offset. Together with a spread of
    `1 / (texts + 1)` they keep a model that made no mistake in a few dozen examples from claiming certainty.
    """
    import numpy as np

    minimize: Any = importlib.import_module("scipy.optimize").minimize
    count, label_count = len(scores), int(scores.shape[1])
    rows = np.arange(count)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        temperature, offsets = np.exp(parameters[0]), parameters[1:]
        shares = _softmax(temperature * scores + offsets)
        value = -np.log(np.maximum(shares[rows, truth], 1e-300)).sum()
        shares[rows, truth] -= 1
        slope = np.concatenate([[(shares * scores).sum() * temperature], shares.sum(axis=0)])
        pull = np.concatenate([[4.0 * parameters[0]], offsets])
        return float(value + (parameters * pull).sum() / 2), slope + pull

    best = minimize(loss, np.zeros(1 + label_count), jac=True, method="L-BFGS-B").x
    return Scaling(temperature=float(np.exp(best[0])), offsets=best[1:], spread=1 / (count + 1))


def _softmax(scores: Floats) -> Floats:
    import numpy as np

    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)
