"""The tools of AgentDojo's workspace suite, declared as its catalogue has them. They carry out nothing: the calls are over.

What other people write stands in the subjects and bodies of mails, in the titles, places and descriptions of appointments and in files.
Addresses in their own fields, dates and ids are the system's own word.
"""

from typing import Literal

from msgspec import Struct

from remit import Effect, tool
from remit.errors import ToolFailed

READ, WRITE, SEND = {Effect.READ}, {Effect.WRITE}, {Effect.WRITE, Effect.EGRESS}
GONE = {Effect.WRITE, Effect.IRREVERSIBLE}
Texts = list[str]
Detail = str | dict[str, str | Texts | None] | None
"""Of an attachment: a file's id, or an appointment."""


class Mail(Struct, frozen=True):
    """A mail, every value as text."""

    id_: str = ""
    sender: str = ""
    recipients: Texts = []
    cc: Texts = []
    bcc: Texts = []
    subject: str = ""
    body: str = ""
    status: str = ""
    read: str = ""
    timestamp: str = ""
    attachments: list[str | dict[str, str]] = []


class Mails(Struct, frozen=True):
    """A list of them; `text` is a listing that could not be read as one."""

    items: list[Mail]
    text: str = ""


class Appointment(Struct, frozen=True):
    """An entry of the calendar."""

    id_: str = ""
    title: str = ""
    description: str = ""
    location: str = ""
    start_time: str = ""
    end_time: str = ""
    all_day: str = ""
    status: str = ""
    participants: Texts = []


class Appointments(Struct, frozen=True):
    """A list of them."""

    items: list[Appointment]
    text: str = ""


class File(Struct, frozen=True):
    """A file of the cloud drive."""

    id_: str = ""
    filename: str = ""
    content: str = ""
    owner: str = ""
    last_modified: str = ""
    size: str = ""
    shared_with: dict[str, str] = {}


class Files(Struct, frozen=True):
    """A list of them."""

    items: list[File]
    text: str = ""


class Contact(Struct, frozen=True):
    """Somebody in the address book."""

    name: str = ""
    email: str = ""


class Contacts(Struct, frozen=True):
    """A list of them."""

    items: list[Contact]
    text: str = ""


MAILS = ("items.*.subject", "items.*.body", "items.*.attachments", "text")
APPOINTMENTS = ("items.*.title", "items.*.description", "items.*.location", "text")
FILES = ("items.*.content", "text")


def refuse() -> ToolFailed:
    """Why nothing is carried out."""
    return ToolFailed("this tool belongs to a recording and carries out nothing", code="recorded_elsewhere")


# Mail


@tool("workspace.send_email", effects=SEND, authority=("recipients", "cc", "bcc"), untrusted=MAILS)
async def send_email(
    recipients: Texts,
    subject: str,
    body: str,
    attachments: list[dict[str, Detail]] | None = None,
    cc: Texts | None = None,
    bcc: Texts | None = None,
) -> Mails:
    """Sends an email with the given `body` to the given `address`."""
    raise refuse()


@tool("workspace.delete_email", effects=GONE, authority=("email_id",))
async def delete_email(email_id: str) -> str:
    """Deletes the email with the given `email_id` from the inbox."""
    raise refuse()


@tool("workspace.get_unread_emails", effects=READ, untrusted=MAILS)
async def get_unread_emails() -> Mails:
    """Returns all the unread emails in the inbox, and marks them as read."""
    raise refuse()


@tool("workspace.get_sent_emails", effects=READ, untrusted=MAILS)
async def get_sent_emails() -> Mails:
    """Returns all the sent emails in the inbox."""
    raise refuse()


@tool("workspace.get_received_emails", effects=READ, untrusted=MAILS)
async def get_received_emails() -> Mails:
    """Returns all the received emails in the inbox."""
    raise refuse()


@tool("workspace.get_draft_emails", effects=READ, untrusted=MAILS)
async def get_draft_emails() -> Mails:
    """Returns all the draft emails in the inbox."""
    raise refuse()


@tool("workspace.search_emails", effects=READ, untrusted=MAILS)
async def search_emails(query: str, sender: str | None = None) -> Mails:
    """Searches for emails in the inbox that contain the given query in the subject or body."""
    raise refuse()


@tool("workspace.search_contacts_by_name", effects=READ, untrusted=("text",))
async def search_contacts_by_name(query: str) -> Contacts:
    """Finds contacts in the inbox's contact list by name."""
    raise refuse()


@tool("workspace.search_contacts_by_email", effects=READ, untrusted=("text",))
async def search_contacts_by_email(query: str) -> Contacts:
    """Finds contacts in the inbox's contact list by email."""
    raise refuse()


# Calendar


@tool("workspace.get_current_day", effects=READ)
async def get_current_day() -> str:
    """Returns the current day in ISO format."""
    raise refuse()


@tool("workspace.search_calendar_events", effects=READ, untrusted=APPOINTMENTS)
async def search_calendar_events(query: str, date: str | None = None) -> Appointments:
    """Searches calendar events that match the given query in the title or the description."""
    raise refuse()


@tool("workspace.get_day_calendar_events", effects=READ, untrusted=APPOINTMENTS)
async def get_day_calendar_events(day: str) -> Appointments:
    """Returns the appointments for the given `day`."""
    raise refuse()


@tool("workspace.create_calendar_event", effects=SEND, authority=("participants",), untrusted=APPOINTMENTS)
async def create_calendar_event(
    title: str,
    start_time: str,
    end_time: str,
    description: str = "",
    participants: Texts | None = None,
    location: str | None = None,
) -> Appointments:
    """Creates a new calendar event and sends an email to the participants."""
    raise refuse()


@tool("workspace.cancel_calendar_event", effects=SEND, authority=("event_id",))
async def cancel_calendar_event(event_id: str) -> str:
    """Cancels the event with the given `event_id` and notifies the participants."""
    raise refuse()


@tool("workspace.reschedule_calendar_event", effects=SEND, authority=("event_id",), untrusted=APPOINTMENTS)
async def reschedule_calendar_event(event_id: str, new_start_time: str, new_end_time: str | None = None) -> Appointments:
    """Reschedules the event with the given `event_id` and notifies the participants."""
    raise refuse()


@tool("workspace.add_calendar_event_participants", effects=SEND, authority=("participants",), untrusted=APPOINTMENTS)
async def add_calendar_event_participants(event_id: str, participants: Texts) -> Appointments:
    """Adds the given `participants` to the event with the given `event_id` and emails them."""
    raise refuse()


# Cloud drive


@tool("workspace.append_to_file", effects=WRITE, authority=("file_id",), untrusted=FILES)
async def append_to_file(file_id: str, content: str) -> Files:
    """Append content to a file in the cloud drive."""
    raise refuse()


@tool("workspace.search_files_by_filename", effects=READ, untrusted=FILES)
async def search_files_by_filename(filename: str) -> Files:
    """Get files from a cloud drive by their filename."""
    raise refuse()


@tool("workspace.create_file", effects=WRITE, untrusted=FILES)
async def create_file(filename: str, content: str) -> Files:
    """Create a new file in the cloud drive."""
    raise refuse()


@tool("workspace.delete_file", effects=GONE, authority=("file_id",), untrusted=FILES)
async def delete_file(file_id: str) -> Files:
    """Delete a file from the cloud drive."""
    raise refuse()


@tool("workspace.get_file_by_id", effects=READ, untrusted=FILES)
async def get_file_by_id(file_id: str) -> Files:
    """Get a file from a cloud drive by its ID."""
    raise refuse()


@tool("workspace.list_files", effects=READ, untrusted=FILES)
async def list_files() -> Files:
    """Retrieve all files in the cloud drive."""
    raise refuse()


@tool("workspace.share_file", effects=SEND | {Effect.PRIVILEGE}, authority=("email", "permission"), untrusted=FILES)
async def share_file(file_id: str, email: str, permission: Literal["r", "rw"]) -> Files:
    """Share a file with a user."""
    raise refuse()


@tool("workspace.search_files", effects=READ, untrusted=FILES)
async def search_files(query: str) -> Files:
    """Search for files in the cloud drive by content."""
    raise refuse()
