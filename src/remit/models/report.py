"""How honest the project's classifiers are: what `remit models report` shows, measured out of fold at training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from remit.contracts.problems import did_you_mean
from remit.contracts.project import Project
from remit.errors import ConfigError
from remit.models.calibration import Report, confusion, report
from remit.models.tools import trained
from remit.values import Json


class HeadReport(msgspec.Struct, frozen=True, kw_only=True):
    """One head: its measures, and which label was taken for which (truth → chosen → count)."""

    name: str
    labels: tuple[str, ...]
    measured: Report
    confusion: Mapping[str, Mapping[str, int]]

    def mistakes(self) -> list[tuple[int, str, str]]:
        """How often which true label was taken for which other one, the most frequent first."""
        found = [
            (count, truth, chosen)
            for truth, row in self.confusion.items()
            for chosen, count in row.items()
            if truth != chosen
        ]
        return sorted(found, key=lambda each: (-each[0], each[1], each[2]))


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One classifier of `remit.toml`."""

    name: str
    training: str
    digest: str
    heads: tuple[HeadReport, ...]

    def plain(self) -> dict[str, Json]:
        """The report as JSON."""
        return {
            "model": self.name,
            "training": self.training,
            "digest": self.digest,
            "heads": [_plain_head(head) for head in self.heads],
        }


def _plain_head(head: HeadReport) -> dict[str, Json]:
    measured: dict[str, Any] = msgspec.to_builtins(head.measured)
    return {"head": head.name, "labels": list(head.labels), **measured, "confusion": {k: dict(v) for k, v in head.confusion.items()}}


def model_reports(project: Project, name: str | None = None) -> list[ModelReport]:
    """The reports of a project's classifiers, or of one. Raises `ConfigError` where there is none of that name."""
    classifiers = {each: section for each, section in project.models.items() if section.kind == "classifier"}
    if name is not None and name not in classifiers:
        hint = did_you_mean(name, classifiers, "classifiers here")
        raise ConfigError(f"`{name}` is no classifier of remit.toml; {hint}")
    if not classifiers:
        raise ConfigError("remit.toml declares no classifier; only these have a confidence to be checked")
    chosen = classifiers if name is None else {name: classifiers[name]}
    return [_report(each, section.training or "", project) for each, section in chosen.items()]


def _report(name: str, training: str, project: Project) -> ModelReport:
    classifier = trained(project.path(training))
    heads = tuple(
        HeadReport(name=head.name, labels=head.labels, measured=report(head.scored), confusion=confusion(head.scored))
        for head in classifier.heads.values()
    )
    return ModelReport(name=name, training=training, digest=classifier.digest, heads=heads)
