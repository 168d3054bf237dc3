# pyright: basic
"""Signs each message with the user who made it and the time when it was made.

Roundup's own web form does this itself; a message that comes in over REST would be shown without an author.
"""

from roundup import date


def sign(db, cl, nodeid, newvalues):
    """Fill in what the request did not say."""
    newvalues.setdefault("author", db.getuid())
    newvalues.setdefault("date", date.Date("."))


def init(db):
    """Called by Roundup when it opens the tracker."""
    db.msg.audit("create", sign)
