# ruff: noqa: F821
# pyright: basic, reportUndefinedVariable=false
"""What a new tracker holds: its vocabularies, its teams, and the users that Roundup itself needs.

Roundup executes this file once, with `db`, `adminpw` and `admin_email` defined. Items get their ids in this order, and
the page templates name the first two statuses by id.
"""

VOCABULARIES = {
    "category": ("access", "email", "hardware", "network", "software", "security", "telephony"),
    "priority": ("urgent", "high", "normal", "low"),
    "status": ("open", "in-progress", "resolved", "closed", "duplicate"),
    "tenant": ("northwind", "seaforth"),
    "region": ("eu", "us"),
}

for klass, names in VOCABULARIES.items():
    for order, name in enumerate(names, start=1):
        db.getclass(klass).create(name=name, order=order)

db.user.create(username="admin", password=adminpw, address=admin_email, roles="Admin")
db.user.create(username="anonymous", roles="Anonymous")

# A team has no password, so it can't log in.
for team in ("service-desk", *(f"{category}-team" for category in VOCABULARIES["category"])):
    db.user.create(username=team, realname=team.replace("-", " ").capitalize(), roles="Team")
