# pyright: basic
"""The tracker's own process: `python run.py TRACKER_HOME`.

Standard input carries one line of JSON, `{"config": …, "port": …, "accounts": {…}}`, and then stays open. It is the
lifeline: whoever started the tracker holds the other end, and when that process is gone, however it died, reading
gives the end of the file and the tracker exits. The byte `d` cuts the lifeline, and the tracker stays.

A pipe is used rather than Linux's parent-death signal, which belongs to the starting thread instead of the process,
is lost when the user changes, and has to be armed between fork and exec.
"""

import json
import os
import sqlite3
import sys
import threading
from pathlib import Path

from roundup import instance
from roundup.password import Password
from roundup.scripts import roundup_server

DETACH = b"d"
INITIALISED = "initialised"


def read_order(descriptor):
    """One line, and not a byte more: what follows belongs to the lifeline."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise SystemExit("standard input ended before the order was complete")
        line += byte
    return json.loads(line)


def hold_lifeline(descriptor):
    """Exit at once when the other end is closed, unless told to stay."""
    if os.read(descriptor, 1) != DETACH:
        os._exit(0)


def initialise(home, accounts):
    """Make the database, its first items and the accounts; what an interrupted attempt left is dropped."""
    tracker = instance.open(str(home))
    if tracker.exists():
        tracker.nuke()
    tracker.init(Password(accounts["admin"]["password"], config=tracker.config))
    db = tracker.open("admin")
    try:
        for name, account in accounts.items():
            if name != "admin":
                password = Password(account["password"], config=tracker.config)
                db.user.create(username=name, realname=account["realname"], roles=account["role"], password=password)
        db.getOTKManager()
        db.getSessionManager()
        db.commit()
    finally:
        db.close()
    (home / INITIALISED).touch()


def hold_open(home):
    """One idle connection to each database, returned to be kept.

    Roundup connects anew for every request. Whenever the last connection to a database in WAL mode closes, SQLite
    writes everything back and deletes the log, which costs several syncs; with one connection left open it doesn't.
    """
    connections = []
    for name in ("db", "db-otk", "db-session"):
        connection = sqlite3.connect(home / "db" / name)
        connection.execute("select count(*) from sqlite_master").fetchone()
        connections.append(connection)
    return connections


def main():
    """Initialise the tracker if it is new, then serve it until the lifeline ends."""
    home = Path(sys.argv[1])
    order = read_order(0)
    threading.Thread(target=hold_lifeline, args=(0,), daemon=True).start()
    (home / "config.ini").write_text(order["config"], encoding="utf-8")
    if not (home / INITIALISED).exists():
        initialise(home, order["accounts"])
    connections = hold_open(home)
    # Headers and body leave together and at once. In two small writes on a connection that is kept alive, the second
    # would wait for the client's delayed acknowledgement of the first: 40 ms a request.
    roundup_server.RoundupRequestHandler.wbufsize = -1
    roundup_server.RoundupRequestHandler.disable_nagle_algorithm = True
    # One process with a thread a connection: nothing but this process is left to stop, and the lock in interfaces.py
    # reaches every request.
    sys.argv = ["roundup-server", "-n", "127.0.0.1", "-p", str(order["port"]), "-t", "thread", f"tracker={home}"]
    roundup_server.run()
    del connections


if __name__ == "__main__":
    main()
