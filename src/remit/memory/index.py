"""Ranking: words by BM25 and vectors by cosine, fused by reciprocal rank, over exactly what somebody may read.

Both databases only keep what this works on, so they can't rank otherwise than each other. Statistics (how many chunks
there are, how many hold a word, how long they are) are those of what may be read: a score says nothing of the rest.

BM25 after Robertson and Zaragoza (2009), with the idf of Lucene, which is never negative; fusion after Cormack, Clarke
and Büttcher (2009).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from remit.memory.text import term, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_K1, _B = 1.2, 0.75
_FUSION = 60
_MOST_SEGMENTS = 8


class Findable(msgspec.Struct, frozen=True, kw_only=True):
    """The words and vectors of one version's chunks, as they are kept: arrays in little-endian bytes.

    `terms` (uint64) and `counts` (uint16) of all chunks one after the other; `sizes` (int32): how many terms each has;
    `lengths` (int32): how many words; `vectors` (int16): all of `dimensions`.
    """

    terms: bytes
    counts: bytes
    sizes: bytes
    lengths: bytes
    vectors: bytes
    dimensions: int


class Place(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A chunk: the second one of version 7 of `policy` is `("policy", 7, 2)`."""

    document: str
    version: int
    number: int


def findable(texts: Sequence[str], vectors: NDArray[np.int16]) -> Findable:
    """What is kept of chunks. Terms of a chunk are in ascending order, so that sums are formed in one order."""
    import numpy as np

    counted = [Counter(map(term, words(text))) for text in texts]
    ordered = [sorted(each.items()) for each in counted]
    pairs = [pair for each in ordered for pair in each]
    return Findable(
        terms=np.array([number for number, _ in pairs], dtype="<u8").tobytes(),
        counts=np.array([min(times, 65_535) for _, times in pairs], dtype="<u2").tobytes(),
        sizes=np.array([len(each) for each in ordered], dtype="<i4").tobytes(),
        lengths=np.array([each.total() for each in counted], dtype="<i4").tobytes(),
        vectors=vectors.astype("<i2").tobytes(),
        dimensions=int(vectors.shape[1]),
    )


class _Segment:
    """Some versions, laid out for searching: postings sorted by term, vectors one below the other."""

    def __init__(self, versions: Mapping[int, tuple[str, int, Findable]]) -> None:
        import numpy as np

        self.versions = versions
        found = list(versions.values())
        sizes = [np.frombuffer(each.sizes, dtype="<i4") for _, _, each in found]
        self.ids = np.fromiter(versions, dtype=np.int64, count=len(found))
        self.of_version = np.repeat(np.arange(len(found)), [len(each) for each in sizes])
        self.first = np.concatenate(([0], np.cumsum([len(each) for each in sizes])))
        self.lengths = np.concatenate([np.frombuffer(each.lengths, dtype="<i4") for _, _, each in found])
        terms = np.concatenate([np.frombuffer(each.terms, dtype="<u8") for _, _, each in found])
        counts = np.concatenate([np.frombuffer(each.counts, dtype="<u2") for _, _, each in found])
        chunks = np.repeat(np.arange(len(self.lengths), dtype=np.int32), np.concatenate(sizes))
        order = np.argsort(terms, kind="stable")
        self._terms, self._counts, self._chunks = terms[order], counts[order], chunks[order]
        self._vectors = np.concatenate(
            [np.frombuffer(each.vectors, dtype="<i2").reshape(-1, each.dimensions) for _, _, each in found]
        ).astype(np.float32)

    def place(self, chunk: int) -> Place:
        at = int(self.of_version[chunk])
        document, version, _ = self.versions[int(self.ids[at])]
        return Place(document=document, version=version, number=chunk - int(self.first[at]) + 1)

    def within(self, allowed: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each chunk, whether its version is among the allowed ones."""
        import numpy as np

        return np.isin(self.ids, allowed, assume_unique=True)[self.of_version]

    def postings(self, number: int, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """The chunks that hold a term and may be read, with how often."""
        import numpy as np

        start = int(np.searchsorted(self._terms, np.uint64(number), side="left"))
        end = int(np.searchsorted(self._terms, np.uint64(number), side="right"))
        chunks, counts = self._chunks[start:end], self._counts[start:end]
        kept = mask[chunks]
        return chunks[kept], counts[kept]

    def products(self, vector: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Exact products with the vectors of some rows; see `remit.memory.embedding`."""
        if len(rows) * 2 < len(self._vectors):
            return self._vectors[rows] @ vector
        return (self._vectors @ vector)[rows]


class Index:
    """What this process has loaded of one tenant's versions. Not safe for threads; whoever uses it takes turns."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._known: set[int] = set()

    def missing(self, versions: Iterable[int]) -> list[int]:
        """Those that were not loaded yet."""
        return [each for each in versions if each not in self._known]

    def add(self, versions: Mapping[int, tuple[str, int, Findable]]) -> None:
        """Load versions by their row: document, version, and what is findable of it."""
        if not versions:
            return
        self._segments.append(_Segment(versions))
        self._known.update(versions)

    def keep(self, wanted: set[int]) -> None:
        """Lay out anew what has come in little by little, without versions that nobody wants any more."""
        if len(self._segments) <= _MOST_SEGMENTS:
            return
        kept = {
            row: version for segment in self._segments for row, version in segment.versions.items() if row in wanted
        }
        self._segments = [_Segment(kept)] if kept else []
        self._known = set(kept)

    def search(
        self, query: str, vector: NDArray[np.int16], allowed: NDArray[np.int64], most: int
    ) -> list[Place]:
        """The chunks that fit best among the allowed versions (rows, sorted), the best first."""
        import numpy as np

        masks = [segment.within(allowed) for segment in self._segments]
        depth = max(50, 5 * most)
        lists = [
            self._best(self._by_words(query, masks), depth),
            self._best(self._by_vector(vector.astype(np.float32), masks), depth),
        ]
        fused: dict[Place, float] = {}
        for ranked in lists:
            for rank, place in enumerate(ranked, start=1):
                fused[place] = fused.get(place, 0.0) + 1 / (_FUSION + rank)
        ordered = sorted(fused.items(), key=lambda found: (-found[1], found[0]))
        return [place for place, _ in ordered[:most]]

    def _by_words(self, query: str, masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.float64]]:
        """BM25 of every chunk, by segment; zero where it may not be read."""
        import numpy as np

        scores = [np.zeros(len(mask)) for mask in masks]
        count = sum(int(mask.sum()) for mask in masks)
        if not count:
            return scores
        total = sum(int(each.lengths[mask].sum(dtype=np.int64)) for each, mask in zip(self._segments, masks, strict=True))
        average = max(total / count, 1.0)
        for number in sorted({term(word) for word in words(query)}):
            found = [each.postings(number, mask) for each, mask in zip(self._segments, masks, strict=True)]
            holding = sum(len(chunks) for chunks, _ in found)
            idf = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
            for segment, score, (chunks, counts) in zip(self._segments, scores, found, strict=True):
                times = counts.astype(np.float64)
                score[chunks] += idf * times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * segment.lengths[chunks] / average))
        return scores

    def _by_vector(self, vector: NDArray[np.float32], masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.float64]]:
        """The product with every chunk, by segment; zero where it may not be read."""
        import numpy as np

        scores: list[NDArray[np.float64]] = []
        for segment, mask in zip(self._segments, masks, strict=True):
            rows, score = np.flatnonzero(mask), np.zeros(len(mask))
            score[rows] = segment.products(vector, rows)
            scores.append(score)
        return scores

    def _best(self, scores: Sequence[NDArray[np.float64]], depth: int) -> list[Place]:
        """The chunks of the highest scores above zero; where scores are the same, by document, version and number."""
        import numpy as np

        together = np.concatenate(scores) if scores else np.zeros(0)
        above = np.flatnonzero(together > 0)
        if len(above) > depth:
            # All that are as good as the last one that is taken, so that names decide and not where they lie.
            least = np.partition(together[above], len(above) - depth)[len(above) - depth]
            above = above[together[above] >= least]
        starts = np.cumsum([0, *(len(each) for each in scores)])
        placed: list[tuple[float, Place]] = []
        for at in above.tolist():
            segment = int(np.searchsorted(starts, at, side="right")) - 1
            placed.append((-float(together[at]), self._segments[segment].place(at - int(starts[segment]))))
        return [place for _, place in sorted(placed)[:depth]]
