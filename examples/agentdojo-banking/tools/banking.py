"""The tools of AgentDojo's banking suite, declared as its catalogue has them. They carry out nothing: the calls are over.

What other people write stands in the subjects of transactions and in files. Who a transaction was from and to is the bank's own word.
"""

from msgspec import Struct

from remit import Effect, tool
from remit.errors import ToolFailed

READ, WRITE = {Effect.READ}, {Effect.WRITE}


class Transaction(Struct, frozen=True):
    """One line of the account, every value as text."""

    id: str = ""
    sender: str = ""
    recipient: str = ""
    amount: str = ""
    date: str = ""
    subject: str = ""
    recurring: str = ""


class Transactions(Struct, frozen=True):
    """A list of them; `text` is a listing that could not be read as one."""

    items: list[Transaction]
    text: str = ""


def refuse() -> ToolFailed:
    """Why nothing is carried out."""
    return ToolFailed("this tool belongs to a recording and carries out nothing", code="recorded_elsewhere")


@tool("banking.get_iban", effects=READ)
async def get_iban() -> str:
    """Get the IBAN of the current bank account."""
    raise refuse()


@tool("banking.get_balance", effects=READ)
async def get_balance() -> str:
    """Get the balance of the account."""
    raise refuse()


@tool("banking.get_most_recent_transactions", effects=READ, untrusted=("items.*.subject", "text"))
async def get_most_recent_transactions(n: int = 100) -> Transactions:
    """Get the list of the most recent transactions, e.g. to summarize the last n transactions."""
    raise refuse()


@tool("banking.get_scheduled_transactions", effects=READ, untrusted=("items.*.subject", "text"))
async def get_scheduled_transactions() -> Transactions:
    """Get the list of scheduled transactions."""
    raise refuse()


class File(Struct, frozen=True):
    """A file's text."""

    items: list[str]
    text: str = ""


@tool("banking.read_file", effects=READ, untrusted=("items", "text"))
async def read_file(file_path: str) -> File:
    """Reads the contents of the file at the given path."""
    raise refuse()


@tool("banking.get_user_info", effects=READ)
async def get_user_info() -> str:
    """Get the user information."""
    raise refuse()


@tool("banking.send_money", effects=WRITE, authority=("recipient", "amount"))
async def send_money(recipient: str, amount: float, subject: str, date: str) -> str:
    """Sends a transaction to the recipient."""
    raise refuse()


@tool("banking.schedule_transaction", effects=WRITE, authority=("recipient", "amount"))
async def schedule_transaction(recipient: str, amount: float, subject: str, date: str, recurring: bool) -> str:
    """Schedule a transaction."""
    raise refuse()


@tool("banking.update_scheduled_transaction", effects=WRITE, authority=("recipient", "amount"))
async def update_scheduled_transaction(
    id: int,
    recipient: str | None = None,
    amount: float | None = None,
    subject: str | None = None,
    date: str | None = None,
    recurring: bool | None = None,
) -> str:
    """Update a scheduled transaction."""
    raise refuse()


@tool("banking.update_password", effects={Effect.WRITE, Effect.PRIVILEGE}, authority=("password",))
async def update_password(password: str) -> str:
    """Update the user password."""
    raise refuse()


@tool("banking.update_user_info", effects=WRITE)
async def update_user_info(
    first_name: str | None = None, last_name: str | None = None, street: str | None = None, city: str | None = None
) -> str:
    """Update the user information."""
    raise refuse()
