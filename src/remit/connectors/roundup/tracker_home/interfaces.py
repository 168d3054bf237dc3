# pyright: basic
"""Two things that this tracker adds to Roundup, through the hook that Roundup has for it.

Changes are made one at a time. Roundup compares `If-Match` with the item and then writes it in two steps, so that of
two requests served by two threads both may find the same entity tag valid, and the later one silently wins. A lock
around each request that changes something closes that gap; reads go on beside it.

A journal can be read over REST: `GET rest/data/issue/<id>/@history`.
"""

import gc
import threading

from roundup import hyperdb
from roundup.cgi import client
from roundup.cgi.exceptions import NotFound, Unauthorised
from roundup.rest import Routing, _data_decorator

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
BAD_REQUEST = 400
change_lock = threading.Lock()


class Client(client.Client):
    """Roundup's request handler, with changes made one after the other."""

    def main(self):
        """Serve one request; its body has been read already, so a slow sender doesn't hold the lock."""
        if self.env["REQUEST_METHOD"] in SAFE_METHODS:
            return super().main()
        with change_lock:
            super().main()
            if self.response_code >= BAD_REQUEST:
                self.release_lock()

    def release_lock(self):
        """End the transaction that a failed request may have left behind.

        Roundup closes its connection without rolling back. When a value could not be bound (a lone surrogate, a
        number of more than 64 bits), the statement stays unfinished, held by the cursor and by the exception's
        traceback; SQLite then keeps the closed connection, and with it the write lock, and every later change waits
        30 s and fails. With cursor and traceback gone the transaction ends.
        """
        db = getattr(self, "db", None)
        if db is not None:
            db.cursor = db.conn = None
        gc.collect()


def named(db, prop, value):
    """A stored value as one reads it: the name of what a link points at, and as it is otherwise."""
    if value is None or not isinstance(prop, hyperdb.Link):
        return value
    klass = db.getclass(prop.classname)
    return klass.get(value, klass.labelprop())


def changes_of(db, properties, arguments, newer):
    """One journal entry as `{property: {"from": …, "to": …}}` or `{property: {"added": […], "removed": […]}}`.

    The journal keeps the value before a change. The value after it is in `newer`, which holds what each property was
    at the next younger entry; the caller goes from the youngest entry to the oldest.
    """
    changes = {}
    for name, old in arguments.items():
        prop = properties.get(name)
        if isinstance(prop, hyperdb.Multilink):
            ids = {sign: list(items) for sign, items in old}
            changes[name] = {"added": ids.get("+", []), "removed": ids.get("-", [])}
        elif prop is not None:
            changes[name] = {"from": named(db, prop, old), "to": named(db, prop, newer.get(name))}
            newer[name] = old
    return changes


class History:
    """The route that is added; Roundup calls it with its own REST object as `self`."""

    @Routing.route("/data/<:class_name>/<:item_id>/@history", "GET")
    @_data_decorator
    def get_history(self, class_name, item_id, input_payload):
        """The journal of one item, oldest entry first, as far as the user may view it."""
        if class_name not in self.db.classes:
            raise NotFound(f"class {class_name} not found")
        if not self.db.security.hasPermission("View", self.db.getuid(), class_name, itemid=item_id):
            raise Unauthorised(f"permission to view {class_name}{item_id} denied")
        klass = self.db.getclass(class_name)
        node = klass.getnode(item_id)
        properties = klass.getprops(protected=False)
        newer = {name: node[name] for name in properties}
        entries = []
        for _, when, user, action, arguments in reversed(klass.history(item_id)):
            changes = changes_of(self.db, properties, arguments, newer) if action == "set" else {}
            author = self.db.user.get(user, "username")
            entries.append({"date": str(when), "author": author, "action": action, "changes": changes})
        return 200, {"collection": entries[::-1]}
