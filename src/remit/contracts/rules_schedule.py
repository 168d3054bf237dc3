"""The rules about `schedule`: times that come, zones that exist, requests that the contract takes."""

from __future__ import annotations

from collections.abc import Iterator
from zoneinfo import ZoneInfo, available_timezones

import jsonschema_rs
from cronsim import CronSimError

from remit.contracts.model import JsonSchema, Schedule
from remit.contracts.problems import Problem, did_you_mean, quoted
from remit.contracts.schedule import times_of
from remit.contracts.subject import Subject


def schedules_can_come(subject: Subject) -> Iterator[Problem]:
    """Every schedule has a next time, in a time zone that there is, and none stands there twice."""
    for at, schedule in enumerate(subject.schedule):
        yield from _wrong_zone(subject, at, schedule)
        try:
            next(times_of(schedule.cron, ZoneInfo("UTC")))
        except CronSimError as error:
            hint = "write `minute hour day month weekday`, such as `0 6 * * 1-5`"
            yield subject.error(("schedule", at, "cron"), f"{quoted(schedule.cron)} is no schedule: {error}", hint)
        except StopIteration:
            yield subject.error(("schedule", at, "cron"), f"{quoted(schedule.cron)} never comes", "name a day that there is")
        if schedule in subject.schedule[:at]:
            yield subject.error(("schedule", at), "this schedule is named twice", "keep one, or ask for something else")


def _wrong_zone(subject: Subject, at: int, schedule: Schedule) -> Iterator[Problem]:
    zones = available_timezones()
    if schedule.zone not in zones:
        hint = did_you_mean(schedule.zone, sorted(zones), "time zones")
        yield subject.error(("schedule", at, "zone"), f"there is no time zone {quoted(schedule.zone)}", hint)


def schedules_meet_the_input(subject: Subject, schema: JsonSchema) -> Iterator[Problem]:
    """What a schedule asks for is a request that the contract takes: nobody is there to see that it is refused."""
    validator = jsonschema_rs.Draft202012Validator(schema)
    for at, schedule in enumerate(subject.schedule):
        error = next(iter(validator.iter_errors(schedule.request)), None)
        if error is not None:
            message = f"the request does not meet the contract's input schema: {error.message}"
            yield subject.error(("schedule", at, "request"), message, "give it what a run needs")
