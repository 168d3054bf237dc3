"""Reading ticket exports as they come: any separator, any encoding, any damage."""

from __future__ import annotations

import contextlib
import csv
import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.demo import tickets_csv
from remit.demo.tickets_csv import ColumnMapping, ExportRow, TicketFile, in_training_part, read_tickets, split_tickets
from remit.errors import ConfigError

REAL_TICKETS = Path(__file__).parents[3] / "shared" / "data" / "tickets" / "endava_tickets.csv.gz"

MAPPING = ColumnMapping(title="Subject", body="Description", labels={"category": "Group"})
HEADER = "Subject,Description,Group\n"


def opened(folder: Path, content: str | bytes, mapping: ColumnMapping = MAPPING) -> TicketFile:
    path = folder / "export.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_tickets(path, mapping)


def failure(folder: Path, content: str | bytes, mapping: ColumnMapping = MAPPING) -> str:
    with pytest.raises(ConfigError) as caught:
        list(opened(folder, content, mapping))
    return caught.value.message


def problems(file: TicketFile) -> list[tuple[int, str]]:
    return [(problem.line, problem.reason) for problem in file.tally.problems]


# ---- what is read --------------------------------------------------------------------------------------------------


def test_columns_are_mapped_by_name_and_others_ignored(tmp_path: Path) -> None:
    file = opened(tmp_path, "Id,Group,Description,Subject\n7, network ,No link.,Socket dead\n")
    assert list(file) == [
        ExportRow(line=2, title="Socket dead", body="No link.", labels={"category": "network"}),
    ]
    assert file.columns == ("Id", "Group", "Description", "Subject")
    assert next(iter(file)).text == "Socket dead\nNo link."


def test_a_title_or_a_body_alone_is_enough(tmp_path: Path) -> None:
    mapping = ColumnMapping(body="Description", labels={})
    (ticket,) = opened(tmp_path, HEADER + "Ignored,The text,x\n", mapping)
    assert (ticket.title, ticket.body, ticket.text) == ("", "The text", "The text")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, delimiter: str) -> None:
    rows = ["Subject|Description|Group", '"a, b; c"|"one, two; three"|x', "d|e, f, g; h|y"]
    text = "\n".join(row.replace("|", delimiter) for row in rows[: 3 if delimiter in "\t|" else 2])
    file = opened(tmp_path, text)
    assert file.delimiter == delimiter
    assert [ticket.title for ticket in file] == (["a, b; c", "d"] if delimiter in "\t|" else ["a, b; c"])
    assert file.tally.skipped == 0


def test_a_separator_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text("Subject~Description~Group\na~b~c\n")
    (ticket,) = read_tickets(path, MAPPING, delimiter="~")
    assert ticket.labels == {"category": "c"}
    with pytest.raises(ConfigError, match="can't separate columns"):
        read_tickets(path, MAPPING, delimiter="~~")


@pytest.mark.parametrize(
    ("encoding", "name", "noted"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8-sig", False),
        ("utf-16", "utf-16", False),
        ("cp1252", "cp1252", True),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, encoding: str, name: str, noted: bool) -> None:
    file = opened(tmp_path, (HEADER + "Gerät,Größe „falsch“,é\n").encode(encoding))
    (ticket,) = file
    assert (ticket.title, ticket.body, ticket.labels) == ("Gerät", "Größe „falsch“", {"category": "é"})
    assert file.encoding == name
    assert bool(file.notes) == noted


def test_a_single_latin_letter_at_the_very_end_decides_the_encoding_and_the_note_names_its_line(tmp_path: Path) -> None:
    rows = "".join(f"ticket {n},body {n},x\n" for n in range(200_000))
    file = opened(tmp_path, HEADER.encode() + rows.encode() + "café,b,x\n".encode("cp1252"))
    assert file.notes == ("`export.csv` is not UTF-8 (line 200002); it was read as Windows-1252",)
    assert list(file)[-1].title == "café"


def test_an_encoding_can_be_given_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes((HEADER + "Жалоба,b,x\n").encode("cp1251"))
    assert next(iter(read_tickets(path, MAPPING, encoding="cp1251"))).title == "Жалоба"
    with pytest.raises(ConfigError, match="`klingon` is not known"):
        read_tickets(path, MAPPING, encoding="klingon")
    with pytest.raises(ConfigError, match="is not `utf-16`"):
        read_tickets(path, MAPPING, encoding="utf-16")


def test_gzip_is_recognised_by_content_not_by_name(tmp_path: Path) -> None:
    (ticket,) = opened(tmp_path, gzip.compress((HEADER + "a,b,c\n").encode()))
    assert ticket.title == "a"


def test_line_breaks_separators_and_quotes_inside_quotes_belong_to_the_field(tmp_path: Path) -> None:
    file = opened(tmp_path, HEADER + '"one\r\ntwo","say ""hi"", please",x\nnext,b,y\n')
    first, second = file
    assert (first.title, first.body) == ("one\r\ntwo", 'say "hi", please')
    assert (first.line, second.line) == (2, 4)


def test_a_field_larger_than_the_csv_module_allows_by_itself_is_read(tmp_path: Path) -> None:
    (ticket,) = opened(tmp_path, HEADER + f"a,{'long ' * 200_000},c\n")
    assert len(ticket.body) == 999_999


def test_a_row_without_a_label_is_kept_and_counted(tmp_path: Path) -> None:
    file = opened(tmp_path, HEADER + "a,b,\nc,d,  \ne,f,x\n")
    assert [ticket.labels for ticket in file] == [{}, {}, {"category": "x"}]
    assert file.tally.unlabelled == {"category": 2}


def test_a_file_can_be_read_again_and_is_read_as_a_stream(tmp_path: Path) -> None:
    file = opened(tmp_path, HEADER + "a,b,x\nc,d,y\n")
    assert next(iter(file)).title == "a"
    assert file.tally.rows == 1
    assert list(file) == list(file)
    assert file.tally.rows == 2


# ---- what is wrong with it -----------------------------------------------------------------------------------------


def test_ragged_and_empty_rows_are_reported_by_line_and_the_rest_is_read(tmp_path: Path) -> None:
    file = opened(tmp_path, HEADER + "a,b,x\n\nshort,row\nc,d,y\nfar,too,many,fields\n,,x\ne,f,z,,\n")
    assert [ticket.title for ticket in file] == ["a", "c", "e"]
    assert problems(file) == [
        (4, "the row has 2 fields, the header 3"),
        (6, "the row has 4 fields, the header 3"),
        (7, "the row has no text"),
    ]
    assert (file.tally.rows, file.tally.kept, file.tally.skipped) == (6, 3, 3)


def test_all_problems_are_counted_but_only_the_first_are_kept(tmp_path: Path) -> None:
    file = opened(tmp_path, HEADER + "bad\n" * 1000)
    assert list(file) == []
    assert file.tally.skipped == 1000
    assert len(file.tally.problems) == tickets_csv.MAX_PROBLEMS_KEPT


def test_a_quote_that_is_not_closed_is_named_with_the_lines_that_it_swallowed(tmp_path: Path) -> None:
    file = opened(tmp_path, HEADER + 'a,b,x\nc,"d,y\n' + "e,f,z\n" * 3)
    assert [ticket.title for ticket in file] == ["a"]
    ((line, reason),) = problems(file)
    assert line == 3
    assert "runs to line 6; is a quote not closed?" in reason


def test_a_runaway_field_is_cut_short_and_reading_goes_on_after_it(tmp_path: Path) -> None:
    runaway = 'c,"' + ("d" * 1_000_000 + "\n") * 11
    file = opened(tmp_path, HEADER + "a,b,x\n" + runaway + "e,f,z\n")
    assert [ticket.title for ticket in file] == ["a", "e"]
    assert any("is a quote not closed?" in reason for _, reason in problems(file))


def test_missing_columns_are_all_named_with_what_there_is_and_a_suggestion(tmp_path: Path) -> None:
    mapping = ColumnMapping(title="subject", body="Descripton", labels={"category": "Team"})
    message = failure(tmp_path, HEADER + "a,b,c\n", mapping)
    assert message == (
        "`export.csv` has no column `subject` (did you mean `Subject`?) and no column `Descripton` "
        "(did you mean `Description`?) and no column `Team`; its columns are `Subject`, `Description`, `Group`"
    )


def test_a_column_that_stands_there_twice_is_not_guessed_at(tmp_path: Path) -> None:
    assert "several columns `Group`" in failure(tmp_path, "Subject,Description,Group,Group\na,b,c,d\n")


def test_a_mapping_without_text_is_refused(tmp_path: Path) -> None:
    assert "map `title`, `body` or both" in failure(tmp_path, HEADER, ColumnMapping(labels={"category": "Group"}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n \n", "is empty"),
        (b"\nSubject,Description,Group\n", "line 1 of `export.csv` is blank"),
        (b"PK\x03\x04rest of a workbook", "export it as CSV"),
        (gzip.compress(HEADER.encode() * 50)[:-12], "damaged gzip"),
        (b"\x1f\x8bnot really", "damaged gzip"),
    ],
)
def test_a_file_that_is_no_export_says_so(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in failure(tmp_path, content)


def test_a_path_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        read_tickets(tmp_path / "missing.csv", MAPPING)
    with pytest.raises(ConfigError, match="can't be read"):
        read_tickets(tmp_path, MAPPING)


@given(content=st.binary(max_size=400))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_bytes_make_it_crash(tmp_path: Path, content: bytes) -> None:
    file = opened(tmp_path, HEADER.encode() + content)
    assert len(list(file)) == file.tally.kept
    # Without its header a file may be refused, but in no other way.
    with contextlib.suppress(ConfigError):
        list(opened(tmp_path, content))


FIELD = st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20)


@given(rows=st.lists(st.tuples(FIELD, FIELD, FIELD), max_size=10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_the_csv_module_wrote_is_read_back(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "written.csv"
    with path.open("w", newline="", encoding="utf-8") as target:
        csv.writer(target).writerows([("Subject", "Description", "Group"), *rows])
    found = [(t.title, t.body, t.labels.get("category", "")) for t in read_tickets(path, MAPPING)]
    stripped = [tuple(field.strip() for field in row) for row in rows]
    assert found == [row for row in stripped if row[0] or row[1]]


# ---- the split -----------------------------------------------------------------------------------------------------


def numbered(count: int) -> list[ExportRow]:
    return [ExportRow(line=n + 2, title=f"ticket {n}", body=f"body of {n}", labels={}) for n in range(count)]


def test_the_split_keeps_order_loses_nothing_and_is_near_the_share() -> None:
    tickets = numbered(2000)
    train, rest = split_tickets(tickets, train_share=0.6)
    assert sorted(train + rest, key=lambda t: t.line) == tickets
    assert train == sorted(train, key=lambda t: t.line)
    assert 1120 < len(train) < 1280
    assert split_tickets(reversed(tickets), train_share=0.6)[0] == train[::-1]


def test_the_same_text_never_falls_in_both_parts_whatever_its_case_and_spacing() -> None:
    for n in range(200):
        text = f"Printer {n} is jammed"
        parts = {in_training_part(form, train_share=0.5) for form in (text, text.upper(), f"  {text}\n", text + " ")}
        assert len(parts) == 1


def test_a_larger_share_only_adds_to_the_training_part() -> None:
    small, _ = split_tickets(numbered(300), train_share=0.3)
    large, _ = split_tickets(numbered(300), train_share=0.7)
    assert all(ticket in large for ticket in small)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0])
def test_a_share_that_leaves_a_part_empty_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="training share"):
        split_tickets([], train_share=share)


def test_the_real_export_is_read_whole() -> None:
    if not REAL_TICKETS.exists():
        pytest.skip("the real tickets are not here (../shared/data/tickets beside the project)")
    heads = ("category", "ticket_type", "urgency")
    file = read_tickets(REAL_TICKETS, ColumnMapping(title="title", body="body", labels={h: h for h in heads}))
    tickets = list(file)
    assert (len(tickets), file.tally.skipped, file.tally.unlabelled, file.notes) == (3431, 0, {}, ())
    train, rest = split_tickets(tickets, train_share=0.6)
    assert not {t.text for t in train} & {t.text for t in rest}
    assert abs(len(train) / 3431 - 0.6) < 0.03
