# ruff: noqa: F821
# pyright: basic, reportUndefinedVariable=false
"""The tracker's classes and what each role may do with them.

Roundup executes this file each time it opens the tracker, with `db`, `Class`, `IssueClass`, `FileClass` and the
property types already defined; it is not imported by Remit.
"""

for vocabulary in ("category", "priority", "status", "tenant", "region"):
    Class(db, vocabulary, name=String(), order=Number()).setkey("name")

Class(db, "keyword", name=String()).setkey("name")

Class(db, "query", klass=String(), name=String(), url=String(), private_for=Link("user"))

Class(
    db,
    "user",
    username=String(),
    password=Password(),
    address=String(),
    realname=String(),
    phone=String(),
    organisation=String(),
    alternate_addresses=String(),
    queries=Multilink("query"),
    roles=String(),
    timezone=String(),
).setkey("username")

# `messageid` is where a note keeps its idempotency key, in the form of a mail's Message-ID.
FileClass(
    db,
    "msg",
    author=Link("user", do_journal="no"),
    recipients=Multilink("user", do_journal="no"),
    date=Date(),
    summary=String(),
    files=Multilink("file"),
    messageid=String(),
    inreplyto=String(),
)

FileClass(db, "file", name=String())

# Besides these, an issue has what Roundup gives every one: title, messages, files, nosy and superseder.
IssueClass(
    db,
    "issue",
    body=String(indexme="yes"),
    category=Link("category"),
    priority=Link("priority"),
    status=Link("status"),
    assignedto=Link("user"),
    requester=String(),
    requester_vip=Boolean(),
    tenant=Link("tenant"),
    region=Link("region"),
    language=String(),
    extkey=String(),
    keyword=Multilink("keyword"),
)

VOCABULARIES = ("category", "priority", "status", "tenant", "region", "keyword")
TRIAGE_FIELDS = ("category", "priority", "status", "assignedto", "superseder", "messages")
NOTE_FIELDS = ("content", "messageid", "inreplyto", "type")


def allow(role, action, klass=None, **limits):
    """Give `role` one permission, limited to some properties or to the items that a check accepts."""
    permission = action
    if klass is not None:
        permission = db.security.addPermission(name=action, klass=klass, **limits)
    db.security.addPermissionToRole(role, permission)


def own_record(db, userid, itemid):
    """A user's own record."""
    return userid == itemid


def own_query(db, userid, itemid):
    """A saved search that the user made."""
    return userid == db.query.get(itemid, "creator")


def visible_query(db, userid, itemid):
    """A saved search that is public or the user's own."""
    return db.query.get(itemid, "private_for") in (None, userid)


# Logging in needs `Web Access`, also for the REST interface. `Agent` triages and `Intake` files: neither may do what
# the other is for, and neither may retire an item, see an address or change a user.
for role, description in (
    ("Agent", "A service account that triages issues"),
    ("Intake", "A service account that files issues"),
    ("Team", "A team that issues are assigned to; it can't log in"),
):
    db.security.addRole(name=role, description=description)

for role in ("User", "Agent", "Intake"):
    allow(role, "Web Access")
    allow(role, "Rest Access")
    for klass in (*VOCABULARIES, "issue", "msg", "file"):
        allow(role, "View", klass)
    allow(role, "View", "user", properties=("id", "username", "realname", "organisation", "timezone"))

allow("Agent", "Edit", "issue", properties=TRIAGE_FIELDS)
allow("Agent", "Create", "msg", properties=NOTE_FIELDS)

allow("Intake", "Create", "issue")

for klass in ("issue", "msg", "file"):
    allow("User", "Edit", klass)
    allow("User", "Create", klass)
allow("User", "View", "user", check=own_record)
allow("User", "Edit", "user", check=own_record, properties=("password", "realname", "phone", "queries", "timezone"))
allow("User", "View", "query", check=visible_query)
allow("User", "Search", "query")
allow("User", "Create", "query")
for action in ("Edit", "Retire", "Restore"):
    allow("User", action, "query", check=own_query)

# Whoever is not logged in gets the login page and nothing else, and can't register.
allow("Anonymous", "Web Access")
