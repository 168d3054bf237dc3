"""Official e-invoice examples and rule tests: `python -m benchmarks.invoices FOLDER`.

FOLDER holds `examples.index.jsonl` with the files it names, and `rule_tests.jsonl.gz`. Prints how many of the examples are
read and which rules they break; and, for each rule that is checked, how often its official tests come out as expected.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from remit.connectors.en16931 import rules
from remit.connectors.en16931.checking import OF_CATEGORIES, findings
from remit.connectors.en16931.reading import read_invoice
from remit.connectors.en16931.recalculation import recalculated
from remit.connectors.en16931.tree import InvoiceUnreadable


def checked_rules() -> frozenset[str]:
    """Every rule whose number stands in the code, and those of the VAT categories."""
    folder = Path(rules.__file__).parent
    texts = (path.read_text(encoding="utf-8") for path in folder.glob("*rules.py"))
    return OF_CATEGORIES | {number for text in texts for number in re.findall(r'"(BR-(?:[A-Z]+-)?[0-9]+)"', text)}


def examples(folder: Path) -> dict[str, Any]:
    """How many of the complete documents are read, and what is found in them."""
    found: dict[str, Any] = {"files": 0, "unreadable": {}, "clean": 0, "findings": {}, "lines_differ": {}}
    for line in (folder / "examples.index.jsonl").read_text(encoding="utf-8").splitlines():
        name = json.loads(line)["exported_as"]
        found["files"] += 1
        try:
            invoice = read_invoice((folder / name).read_bytes())
        except InvoiceUnreadable as error:
            found["unreadable"][name] = f"{error.code}: {error.message}"
            continue
        again, stated = recalculated(invoice), invoice.totals.payable
        if again is not None and stated is not None and abs(again.payable - stated) > again.slack:
            found["lines_differ"][name] = f"{again.payable} by its lines, {stated} stated"
        against = findings(invoice)
        if against:
            found["findings"][name] = [f"{each.rule}: {each.message}" for each in against]
        else:
            found["clean"] += 1
    return found


def rule_tests(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Every expectation: rule, what is expected of it, what was found, and the test."""
    for line in gzip.decompress((folder / "rule_tests.jsonl.gz").read_bytes()).decode().splitlines():
        test = json.loads(line)
        try:
            against = {each.rule for each in findings(read_invoice(test["document"].encode()))}
        except InvoiceUnreadable as error:
            against = {f"unreadable ({error.code})"}
        for expected in test["expect"]:
            rule = expected["rule"]
            unreadable = [each for each in against if each.startswith("unreadable")]
            said = unreadable[0] if unreadable else "error" if rule in against else "success"
            yield rule, expected["verdict"], said, f"{test['file']} #{test['test_no']}"


def judged(folder: Path) -> dict[str, Any]:
    """By rule: how many expectations are met, and the tests of those that are not."""
    checked = checked_rules()
    met: Counter[str] = Counter()
    missed: defaultdict[str, list[str]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for rule, expected, said, test in rule_tests(folder):
        if rule not in checked:
            left_out[rule] += 1
        elif expected == said:
            met[rule] += 1
        else:
            missed[rule].append(f"{test}: expected {expected}, found {said}")
    return {"met": dict(sorted(met.items())), "missed": dict(sorted(missed.items())), "not_checked": dict(sorted(left_out.items()))}


def table(found: Mapping[str, Any]) -> str:
    whole, tests = found["examples"], found["rule_tests"]
    lines = [f"examples: {whole['files']} files, {whole['clean']} without a finding, {len(whole['unreadable'])} unreadable"]
    lines += [f"  {name}: {why}" for name, why in whole["unreadable"].items()]
    for name, said in whole["findings"].items():
        lines += [f"  {name}", *(f"      {each}" for each in said)]
    lines.append(f"of {len(whole['lines_differ'])} the lines make another amount than is payable, which no rule forbids")
    lines += [f"  {name}: {said}" for name, said in whole["lines_differ"].items()]
    met, missed = sum(tests["met"].values()), sum(map(len, tests["missed"].values()))
    lines.append(f"rule tests: {met} of {met + missed} come out as expected, of {len({*tests['met'], *tests['missed']})} rules")
    for rule, said in tests["missed"].items():
        lines += [f"  {rule}", *(f"      {each}" for each in said)]
    others = tests["not_checked"]
    lines.append(f"not checked: {len(others)} rules with {sum(others.values())} expectations: {', '.join(others)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.invoices", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds `examples.index.jsonl` and `rule_tests.jsonl.gz`")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    options = parser.parse_args()
    found = {"examples": examples(options.folder), "rule_tests": judged(options.folder)}
    print(json.dumps(found) if options.json else table(found))


if __name__ == "__main__":
    main()
