"""How long a search of memory takes, over 10,000 and 100,000 chunks: the first one, which loads, and those after it.

    python -m benchmarks.memory [FOLDER]

Documents have ten chunks of some eighty words each, drawn with the frequencies of a language (Zipf).
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from remit.journal.journal import Journal
from remit.journal.redaction import Redactor
from remit.journal.vault import Vault
from remit.memory.documents import NewVersion, Viewer
from remit.memory.embedding import LocalEmbedding
from remit.memory.memory import Memory
from remit.memory.shelf import Shelf
from remit.storage.database import open_database

_CHUNKS, _WORDS, _KNOWN = 10, 80, 20_000
_AT_ONCE = 50


def text(chance: random.Random) -> str:
    """A document; each paragraph becomes a chunk."""
    paragraphs: list[str] = []
    for _ in range(_CHUNKS):
        drawn = [f"word{int(_KNOWN ** chance.random())}x" for _ in range(_WORDS)]
        paragraphs.append(" ".join(drawn)[:880].ljust(800, "."))
    return "\n\n".join(paragraphs)


async def measure(folder: Path, documents: int) -> dict[str, float]:
    """Seconds: to write one document, of the first search, and of a later one (medians)."""
    database, vault = open_database(f"sqlite:{folder / f'{documents}.db'}"), Vault(bytes(32))
    journal = Journal(database, vault=vault)
    memory = Memory(
        Shelf(database, vault, "shop"),
        journal=journal,
        redactor=Redactor(key=bytes(32)),
        embedding=LocalEmbedding,
        roles=lambda _person: frozenset(),
    )
    chance, agent = random.Random(documents), "agent/shop/desk"
    began = time.perf_counter()
    for at in range(0, documents, _AT_ONCE):
        news = [
            NewVersion(document=f"d{number}", text=text(chance), owner=agent, readers=(agent,), label="trusted", source="s")
            for number in range(at, min(at + _AT_ONCE, documents))
        ]
        await asyncio.gather(*(memory.write(new, by=agent, region="eu") for new in news))
    written = (time.perf_counter() - began) / documents
    viewer = Viewer(principal=agent, region="eu")
    began = time.perf_counter()
    await memory.search("word12x word900x", viewer, most=5)
    first, later = time.perf_counter() - began, list[float]()
    for _ in range(30):
        query = " ".join(f"word{int(_KNOWN ** chance.random())}x" for _ in range(5))
        began = time.perf_counter()
        await memory.search(query, viewer, most=5)
        later.append(time.perf_counter() - began)
    await journal.close()
    database.close()
    return {"write_s": written, "first_search_s": first, "search_s": median(later)}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        for documents in (1_000, 10_000):
            found = asyncio.run(measure(folder, documents))
            print(f"{documents * _CHUNKS:,} chunks: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
