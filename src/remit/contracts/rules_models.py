"""Rules about models: each binding names models that are there, and says what they are asked and what they may answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from remit.contracts.answers import ANSWER_SUFFIX, SCHEMA_SUFFIX, answer_kind, beside
from remit.contracts.files import PROMPTS, parse_schema
from remit.contracts.model import AnswerKind, ModelBinding
from remit.contracts.problems import Problem, did_you_mean, listed, quoted
from remit.contracts.subject import Subject
from remit.values import Path, ValueRefused, parse

_LABELS_HINT: Final = 'write what it may answer, such as `{"category": ["network", "access"]}`'
_SCHEMA_HINT: Final = "write the JSON Schema of what it answers"
_FROM_FILES: Final = {AnswerKind.LABELS: (ANSWER_SUFFIX, _LABELS_HINT), AnswerKind.VALUE: (SCHEMA_SUFFIX, _SCHEMA_HINT)}


def models_are_bound(subject: Subject) -> Iterator[Problem]:
    """Every model that a binding names stands in `remit.toml`, and its prompt in `prompts/`."""
    models, prompts = subject.known.models, subject.files.prompts
    for name, binding in subject.models.items():
        places: list[tuple[Path, str]] = [(("models", name, "use"), binding.use)]
        places += [(("models", name, "fallback", at), each) for at, each in enumerate(binding.fallback or ())]
        for path, model in places:
            if models is not None and model not in models:
                hint = did_you_mean(model, models, "models there")
                yield subject.error(path, f"model {quoted(model)} is not declared in `remit.toml`", hint)
            elif path[2] == "fallback" and model in (binding.use, *(binding.fallback or ())[: int(path[3])]):
                yield subject.error(path, f"model {quoted(model)} is asked already", "name another one, or take it out")
        prompt = binding.prompt
        if prompt is not None and prompt not in prompts and not _is_unread(subject, prompt):
            hint = did_you_mean(prompt, prompts, f"files in `{PROMPTS}/`")
            yield subject.error(("models", name, "prompt"), f"there is no prompt {quoted(prompt)}", hint)


def _is_unread(subject: Subject, file: str) -> bool:
    """Whether the file is there but could not be read, which is said already."""
    return any(problem.file.endswith(f"/{PROMPTS}/{file}") for problem in subject.files.problems)


def models_know_what_to_say(subject: Subject) -> Iterator[Problem]:
    """Whoever is bound can give the kind of answer that is wanted, and the file that describes it stands there."""
    for name, binding in subject.models.items():
        kinds = [(subject.known.models or {}).get(each, "") for each in (binding.use, *(binding.fallback or ()))]
        kind = answer_kind(binding, kinds[0], subject.files.prompts)
        path: Path = ("models", name)
        if "classifier" in kinds and kind is not AnswerKind.LABELS:
            hint = "leave `answer` out, or choose another model"
            yield subject.error((*path, "answer"), f"a classifier answers labels, not {quoted(kind)}", hint)
            continue
        if kinds == ["classifier"] or kinds[0] == "":
            continue
        described = kind in _FROM_FILES
        if binding.prompt is None:
            if (described or "llm" in kinds) and subject.is_absent((*path, "prompt")):
                yield _promptless(subject, path, name, kinds)
        elif binding.prompt in subject.files.prompts:
            yield from _described(subject, (*path, "prompt"), binding, kind)


def _promptless(subject: Subject, path: Path, name: str, kinds: list[str]) -> Problem:
    what = "is a language model" if "llm" in kinds else "is to answer in a form that stands beside a prompt, and is"
    hint = f"add `prompt: <file>`; files in `{PROMPTS}/`: {listed(subject.files.prompts) or 'none'}"
    return subject.error(path, f"model {quoted(name)} {what} without a prompt", hint)


def _described(subject: Subject, path: Path, binding: ModelBinding, kind: AnswerKind) -> Iterator[Problem]:
    prompt, prompts = binding.prompt or "", subject.files.prompts
    if binding.answer is None and all(beside(prompt, suffix) in prompts for suffix in (ANSWER_SUFFIX, SCHEMA_SUFFIX)):
        message = f"beside the prompt stand {quoted(beside(prompt, ANSWER_SUFFIX))} and {quoted(beside(prompt, SCHEMA_SUFFIX))}"
        yield subject.error(path, message, "say which counts, with `answer: labels` or `answer: value`")
        return
    if kind not in _FROM_FILES:
        return
    suffix, hint = _FROM_FILES[kind]
    name = beside(prompt, suffix)
    text = prompts.get(name)
    if text is None:
        if not _is_unread(subject, name):
            yield subject.error(path, f"there is no {quoted(name)} beside the prompt", hint)
        return
    file = f"{subject.document.file.rpartition('/')[0]}/{PROMPTS}/{name}"
    yield from parse_schema(text, file)[1] if kind is AnswerKind.VALUE else _labels(text, file)


def _labels(text: str, file: str) -> Iterator[Problem]:
    try:
        msgspec.convert(parse(text), dict[str, list[str]])
    except ValueRefused as error:
        yield Problem(file=file, line=1, message=error.message, suggestion=_LABELS_HINT)
    except msgspec.ValidationError:
        yield Problem(file=file, line=1, message="the answers are not labels by name", suggestion=_LABELS_HINT)


def second_models_answer_labels(subject: Subject) -> Iterator[Problem]:
    """Whoever verifies a call says `yes` or `no`."""
    for at, action in enumerate(subject.actions):
        for place, verifier in enumerate(action.verify):
            binding = subject.models.get(verifier.removeprefix("model:")) if verifier.startswith("model:") else None
            if binding is None:
                continue
            kind = answer_kind(binding, (subject.known.models or {}).get(binding.use, ""), subject.files.prompts)
            if kind is not AnswerKind.LABELS:
                path: Path = ("actions", at, "verify", place)
                hint = "bind a model that answers labels, with `agrees` among its heads"
                yield subject.error(path, f"{quoted(verifier)} answers {quoted(kind)}, and can't say yes or no", hint)


MODEL_RULES: Final[tuple[Callable[[Subject], Iterable[Problem]], ...]] = (
    models_are_bound,
    models_know_what_to_say,
    second_models_answer_labels,
)
