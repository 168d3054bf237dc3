"""The local text classifier and the measures of its honesty."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.demo.tickets_csv import ColumnMapping, read_tickets, split_tickets
from remit.models.calibration import (
    PROBABILITY_FLOOR,
    Scored,
    confusion,
    coverage,
    expected_calibration_error,
    log_loss,
    reliability,
    reliability_plot,
    report,
    score,
)
from remit.models.classifier import FOLDS, MAX_CHARACTERS, Example, TextClassifier, TrainingRefused

REAL_TICKETS = Path(__file__).parents[3] / "shared" / "data" / "tickets" / "endava_tickets.csv.gz"

SUBJECTS = {
    "network": ["the office wifi", "my vpn tunnel", "the network cable", "the guest wlan", "our branch router"],
    "hardware": ["the laser printer", "my docking station", "the laptop screen", "a keyboard", "the desk monitor"],
    "access": ["my account password", "the payroll login", "a locked account", "my sign in code", "the shared folder"],
}
FAULTS = {
    "urgent": ["is down for everybody", "stopped and nobody can work", "failed and the customer is waiting"],
    "normal": ["is slow again", "does not behave since monday", "asks me twice every morning"],
}
OPENINGS = ["hello team", "good morning", "dear colleagues", "hi", "hello service desk"]
CLOSINGS = ["please have a look", "thanks for your help", "could someone check this", "many thanks in advance"]


def ticket(chance: random.Random) -> Example:
    category, priority = chance.choice(list(SUBJECTS)), chance.choice(list(FAULTS))
    words = [
        chance.choice(OPENINGS),
        chance.choice(SUBJECTS[category]),
        chance.choice(FAULTS[priority]),
        f"in room {chance.randrange(1000)}",
        chance.choice(CLOSINGS),
    ]
    return Example(text=" ".join(words), labels={"category": category, "priority": priority})


def tickets(count: int, seed: int) -> list[Example]:
    chance = random.Random(seed)
    return [ticket(chance) for _ in range(count)]


@pytest.fixture(scope="module")
def classifier() -> TextClassifier:
    return TextClassifier.train(tickets(120, seed=1), targets=["category", "priority"])


# ---- what it learns ------------------------------------------------------------------------------------------------


def test_every_head_is_learned_from_the_same_texts(classifier: TextClassifier) -> None:
    unseen = tickets(60, seed=2)
    predicted = [classifier.predict(example.text) for example in unseen]
    for head in ("category", "priority"):
        right = sum(p[head].label == e.labels[head] for p, e in zip(predicted, unseen, strict=True))
        assert right >= 57, head


def test_a_ranking_holds_every_label_and_is_a_distribution(classifier: TextClassifier) -> None:
    for example in tickets(20, seed=3):
        for head, prediction in classifier.predict(example.text).items():
            labels, shares = zip(*prediction.ranking, strict=True)
            assert sorted(labels) == sorted(classifier.heads[head].labels)
            assert list(shares) == sorted(shares, reverse=True)
            assert math.isclose(sum(shares), 1.0)
            assert (prediction.label, prediction.confidence) == prediction.ranking[0]
            assert 0 < prediction.confidence < 1


def test_neither_the_order_of_the_examples_nor_a_second_training_changes_anything(classifier: TextClassifier) -> None:
    shuffled = tickets(120, seed=1)
    random.Random(9).shuffle(shuffled)
    again = TextClassifier.train(shuffled, targets=["category", "priority"])
    texts = [example.text for example in tickets(10, seed=5)]
    assert again.digest == classifier.digest
    assert again.heads == classifier.heads
    assert [again.predict(text) for text in texts] == [classifier.predict(text) for text in texts]


def test_the_digest_names_texts_labels_and_targets(classifier: TextClassifier) -> None:
    examples = tickets(120, seed=1)
    first = examples[0]
    other_text = [replace(first, text=first.text + " now"), *examples[1:]]
    other = "access" if first.labels["category"] != "access" else "network"
    other_label = [replace(first, labels={**first.labels, "category": other}), *examples[1:]]
    digests = {
        classifier.digest,
        TextClassifier.train(other_text, targets=["category", "priority"]).digest,
        TextClassifier.train(other_label, targets=["category", "priority"]).digest,
        TextClassifier.train(examples, targets=["category"]).digest,
    }
    assert len(digests) == 4
    assert all(len(digest) == 64 for digest in digests)


def test_an_example_without_a_label_for_a_head_is_left_out_of_that_head_only() -> None:
    examples = tickets(60, seed=6)
    bare = [replace(e, labels={"category": e.labels["category"]}) for e in examples[:20]]
    trained = TextClassifier.train(bare + examples[20:], targets=["category", "priority"])
    assert trained.heads["category"].examples == 60
    assert trained.heads["priority"].examples == 40


def test_a_label_with_a_single_example_is_learned_and_stays_rare() -> None:
    rare = Example(text="please order a projector for the town hall", labels={"category": "purchase"})
    trained = TextClassifier.train([*tickets(80, seed=7), rare], targets=["category"])
    assert "purchase" in trained.heads["category"].labels
    usual = dict(trained.predict("hello team my vpn tunnel is down for everybody thanks")["category"].ranking)
    assert 0 < usual["purchase"] < 0.1


def test_predictions_agree_with_the_same_model_assembled_from_scikit_learn(classifier: TextClassifier) -> None:
    text_features: Any = pytest.importorskip("sklearn.feature_extraction.text")
    pipeline: Any = pytest.importorskip("sklearn.pipeline")
    linear: Any = pytest.importorskip("sklearn.linear_model")
    vectoriser = text_features.TfidfVectorizer
    words = vectoriser(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    pieces = vectoriser(analyzer="char_wb", ngram_range=(3, 4), min_df=3, sublinear_tf=True)
    reference = pipeline.make_pipeline(
        pipeline.make_union(words, pieces), linear.LogisticRegression(C=3.0, max_iter=10_000, tol=1e-7)
    )
    examples, unseen = tickets(120, seed=1), [example.text for example in tickets(40, seed=8)]
    reference.fit([e.text for e in examples], [e.labels["priority"] for e in examples])
    scores = [float(value) for value in reference.decision_function(unseen)]

    def log_odds(text: str) -> float:
        prediction = classifier.predict(text)["priority"]
        # Take off what was spread evenly for want of examples and of familiarity.
        claimed = prediction.familiarity * (1 - 1 / (len(examples) + 1))
        urgent = (dict(prediction.ranking)["urgent"] - (1 - claimed) / 2) / claimed
        return math.log(urgent / (1 - urgent))

    # Calibration may stretch and shift the scores, and nothing else.
    found = [log_odds(text) for text in unseen]
    low, high = scores.index(min(scores)), scores.index(max(scores))
    slope = (found[high] - found[low]) / (scores[high] - scores[low])
    for value, odds in zip(scores, found, strict=True):
        assert math.isclose(odds, found[low] + slope * (value - scores[low]), abs_tol=0.1)


# ---- what it admits not to know ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\t ",
        "asdkjh qwlekj zxmcnb qpwoei",
        "Mein Drucker druckt nur noch leere Seiten, bitte um schnelle Hilfe",
        "プリンターが動きません。助けてください。",
        "proszę o reset hasła do systemu kadrowego",
    ],
)
def test_a_text_unlike_all_examples_gets_little_confidence(classifier: TextClassifier, text: str) -> None:
    predicted = classifier.predict(text)
    assert predicted["category"].familiarity < 0.3
    assert predicted["category"].confidence < 0.55
    assert predicted["priority"].confidence < 0.65


def test_one_known_word_is_not_enough_for_confidence(classifier: TextClassifier) -> None:
    assert classifier.predict("printer")["category"].confidence < 0.6
    assert classifier.predict("printer printer printer printer printer")["category"].confidence < 0.6
    assert classifier.predict("hello team the laser printer is slow again many thanks")["category"].confidence > 0.8


def test_labels_without_a_pattern_earn_no_confidence_even_when_every_text_stands_there_thrice() -> None:
    chance = random.Random(11)
    drawn = [replace(e, labels={"coin": chance.choice(["heads", "tails"])}) for e in tickets(100, seed=12)]
    trained = TextClassifier.train(drawn * 3, targets=["coin"])
    # Copies of a held-out text among those trained on would make this look like near certainty.
    assert trained.heads["coin"].accuracy < 0.65
    predicted = [trained.predict(example.text) for example in tickets(50, seed=13)]
    assert sum(p["coin"].confidence for p in predicted) / 50 < 0.7


def test_only_the_beginning_of_a_very_long_text_is_read(classifier: TextClassifier) -> None:
    beginning = ("my vpn tunnel is slow again " * 400)[:MAX_CHARACTERS]
    assert len(beginning) == MAX_CHARACTERS
    long = classifier.predict(beginning + " password" * 100_000)
    assert long == classifier.predict(beginning)


@given(text=st.text(alphabet=st.characters(), max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_string_gets_a_distribution(classifier: TextClassifier, text: str) -> None:
    for prediction in classifier.predict(text).values():
        assert math.isclose(sum(share for _, share in prediction.ranking), 1.0)
        assert 0.0 <= prediction.familiarity <= 1.0


def test_lone_surrogates_are_accepted_in_training_and_prediction() -> None:
    broken = [replace(e, text=e.text + " \ud800") for e in tickets(30, seed=14)]
    assert TextClassifier.train(broken, targets=["category"]).predict("\udfff vpn")["category"].label


# ---- what it refuses, and what it costs ----------------------------------------------------------------------------


def refusal(examples: list[Example], targets: list[str]) -> str:
    with pytest.raises(TrainingRefused) as caught:
        TextClassifier.train(examples, targets=targets)
    assert caught.value.code == "training_refused"
    return caught.value.message


def test_training_that_can_not_work_is_refused_with_the_name_of_the_head() -> None:
    examples = tickets(20, seed=15)
    same = [replace(e, labels={"category": "network"}) for e in examples]
    few = [Example(text=f"text number {n % 2}", labels={"category": f"label {n % 2}"}) for n in range(20)]
    wordless = [Example(text="?" * n, labels={"category": f"label {n % 2}"}) for n in range(1, 20)]
    assert "`targets`" in refusal(examples, [])
    assert refusal(examples, ["colour"]) == (
        "no example has a label for head `colour`; the heads with labels are `category`, `priority`"
    )
    assert "are none" in refusal([], ["category"])
    assert "`network`" in refusal(same, ["category"])
    assert f"2 different texts; training takes at least {FOLDS}" in refusal(few, ["category"])
    assert "no words" in refusal(wordless, ["category"])


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_module_loads_no_numerical_library() -> None:
    code = "import sys, remit.models.classifier; print([m for m in ('numpy', 'scipy', 'sklearn') if m in sys.modules])"
    assert run_python(code) == "[]"


def test_without_scikit_learn_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
from remit.errors import RemitError
from remit.models.classifier import Example, TextClassifier
examples = [Example(text=f"word{n}", labels={"a": str(n % 2)}) for n in range(9)]
try:
    TextClassifier.train(examples, targets=["a"])
except RemitError as error:
    print(error.code, error.message)
"""
    printed = run_python(code)
    assert printed.startswith("extra_missing")
    assert "pip install 'remit[demo]'" in printed


def test_real_service_desk_tickets_are_predicted_well_and_honestly() -> None:
    if not REAL_TICKETS.exists():
        pytest.skip("the real tickets are not here (../shared/data/tickets beside the project)")
    heads = ("category", "ticket_type", "urgency")
    mapping = ColumnMapping(title="title", body="body", labels={head: head for head in heads})
    train, rest = split_tickets(read_tickets(REAL_TICKETS, mapping), train_share=0.6)
    trained = TextClassifier.train([Example(text=t.text, labels=t.labels) for t in train], targets=heads)
    predicted = [trained.predict(t.text) for t in rest]
    measured = {
        head: report([score(p[head].ranking, t.labels[head]) for p, t in zip(predicted, rest, strict=True)])
        for head in heads
    }
    assert measured["category"].accuracy > 0.83
    assert measured["ticket_type"].accuracy > 0.98
    assert measured["urgency"].accuracy > 0.94
    for head, found in measured.items():
        assert found.ece < 0.03, head
        assert abs(found.accuracy - trained.heads[head].accuracy) < 0.03, head
    kept = {c.threshold: c for c in measured["category"].coverage}[0.8]
    assert kept.share > 0.6
    assert kept.accuracy is not None
    assert kept.accuracy > 0.92


# ---- calibration ---------------------------------------------------------------------------------------------------


def scored(confidence: float, *, correct: bool) -> Scored:
    return Scored(confidence=confidence, correct=correct, truth_probability=confidence if correct else 0.0)


def test_a_ranking_is_scored_against_the_truth() -> None:
    ranking = [("network", 0.7), ("access", 0.3)]
    assert score(ranking, "network") == Scored(
        confidence=0.7, correct=True, truth_probability=0.7, label="network", truth="network"
    )
    assert score(ranking, "access") == Scored(
        confidence=0.7, correct=False, truth_probability=0.3, label="network", truth="access"
    )
    assert score(ranking, "never seen") == Scored(
        confidence=0.7, correct=False, truth_probability=0.0, label="network", truth="never seen"
    )
    with pytest.raises(ValueError, match="at least one label"):
        score([], "network")


def test_a_confusion_counts_each_true_label_by_what_it_was_taken_for() -> None:
    ranking = [("network", 0.7), ("access", 0.3)]
    scored = [score(ranking, "network"), score(ranking, "access"), score(ranking, "access")]
    assert confusion(scored) == {"access": {"network": 2}, "network": {"network": 1}}


def test_the_calibration_error_is_the_weighted_distance_of_confidence_and_accuracy() -> None:
    # Four at 0.95 of which three are right (off by 0.20), one at 0.55 that is right (off by 0.45).
    items = [scored(0.95, correct=right) for right in (True, True, True, False)] + [scored(0.55, correct=True)]
    assert math.isclose(expected_calibration_error(items, bins=10), 0.8 * 0.20 + 0.2 * 0.45)


def test_a_truth_without_probability_costs_a_lot_but_not_infinity() -> None:
    assert math.isclose(log_loss([scored(0.9, correct=False)]), -math.log(PROBABILITY_FLOOR))
    assert math.isclose(log_loss([scored(0.5, correct=True)]), math.log(2))


def test_coverage_says_what_is_kept_and_how_good_it_is() -> None:
    items = [scored(0.9, correct=True), scored(0.8, correct=False), scored(0.4, correct=True)]
    found = coverage(items, 0.8)
    assert (found.kept, found.share, found.accuracy) == (2, 2 / 3, 0.5)
    assert coverage(items, 0.95).accuracy is None


def test_nothing_can_not_be_measured() -> None:
    for measure in (report, log_loss, expected_calibration_error):
        with pytest.raises(ValueError, match="no predictions"):
            measure([])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_bins_hold_every_prediction_once_and_in_range(pairs: list[tuple[float, bool]], count: int) -> None:
    items = [scored(confidence, correct=correct) for confidence, correct in pairs]
    bins = reliability(items, bins=count)
    assert len(bins) == count
    assert sum(inside.count for inside in bins) == len(items)
    assert all(inside.low - 1e-9 <= inside.confidence <= inside.high + 1e-9 for inside in bins if inside.count)
    right = sum(inside.accuracy * inside.count for inside in bins)
    assert math.isclose(right, sum(correct for _, correct in pairs), abs_tol=1e-9)
    assert 0 <= expected_calibration_error(items, bins=count) <= 1


def test_the_plot_draws_accuracy_as_a_bar_and_confidence_as_a_mark() -> None:
    items = [scored(0.95, correct=True)] * 3 + [scored(0.95, correct=False), scored(0.35, correct=True)]
    head, low, high = reliability_plot(reliability(items, bins=10)).splitlines()
    assert head.startswith("confidence")
    assert low.startswith("0.30–0.40")
    assert low.count("█") == 29
    assert "│" in low
    assert high.index("│") > high.rindex("█"), "a bar that stops short of its mark is overconfident"
    assert len({len(head), len(low), len(high)}) == 1
    assert reliability_plot([]) == "no predictions"
