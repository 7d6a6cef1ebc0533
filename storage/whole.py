"""Files that are there as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Gives a file to write, which takes the place of another once it is on disk; nothing is left
    of it when that fails.

    It lies beside the other in a folder of its own, so that several may be written at once and the
    last one stays.
    """
    with TemporaryDirectory(prefix=f"{path.name}.", suffix=".part", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
