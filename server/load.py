"""`till inventory import FILE.csv`: puts a season of stock up for sale, all of it or nothing.

The header names the columns: `option_code` or `sku`, `date`, `max_quantity`, and `inventory_code`
if rows have codes of their own. Every line is judged first; one bad line and nothing is loaded.
"""

import csv
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track

from server.config import Config
from storage import inventory
from storage.engine import Engine
from storage.errors import InvalidField, OutcomeUnknown, Overloaded, Refusal
from storage.inventory import Setting

COLUMNS = {"option_code", "sku", "date", "max_quantity", "inventory_code"}
ERRORS_MAX = 100
"""Bad lines told at once."""
_UNKNOWN = (
    "the database failed in the moment of the commit: all rows were loaded, or none. Import the "
    "file again: rows that have their maximum already stay as they are"
)


class BadLines(ValueError):
    """Some lines of the file cannot be loaded; the text tells each with its number."""

    def __init__(self, errors: list[str]) -> None:
        more = [f"… and {len(errors) - ERRORS_MAX} more"] if len(errors) > ERRORS_MAX else []
        super().__init__("\n".join(["nothing was loaded", *errors[:ERRORS_MAX], *more]))


class Line(NamedTuple):
    """A line of the file, and its number there."""

    number: int
    cells: dict[str, str]


async def run(config: Config, asked: Namespace) -> Any:
    """Loads a file in one transaction and returns what to print.

    Raises BadLines, ValueError, and RuntimeError for a file that may be loaded another time.
    """
    with _opened(asked.file) as text:
        lines = list(_lines(text))
    engine = Engine(config.database, options=config.options())
    try:
        settings = await engine.scan(lambda: _settings(asked.tenant, lines))
        rows = await engine.write(lambda: inventory.batch_set(asked.tenant, settings, "import"))
    except InvalidField as refusal:
        raise BadLines([f"{refusal.field} {refusal.text}"]) from None
    except OutcomeUnknown:
        raise RuntimeError(_UNKNOWN) from None
    except Overloaded as busy:
        raise RuntimeError(f"nothing was loaded: {busy}; try again") from None
    except Refusal as refusal:
        raise BadLines([str(refusal)]) from None
    finally:
        await engine.close()
    return {"file": asked.file, "rows": len(rows)}


@contextmanager
def _opened(path: str) -> Iterator[Iterable[str]]:
    """Opens a file, or standard input for `-`; Excel's byte order mark is no column name."""
    if path == "-":
        yield sys.stdin
        return
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield file


def _lines(text: Iterable[str]) -> Iterator[Line]:
    reader = csv.DictReader(text, strict=True)
    names = set(reader.fieldnames or ())
    if not {"date", "max_quantity"} <= names or not names & {"option_code", "sku"}:
        raise ValueError("the header must name option_code or sku, date and max_quantity")
    if unknown := names - COLUMNS:
        raise ValueError(f"the header names unknown columns: {', '.join(sorted(unknown))}")
    try:
        for cells in reader:
            kept = {name: (value or "").strip() for name, value in cells.items() if name}
            yield Line(reader.line_num, kept)
    except csv.Error as error:
        raise BadLines([f"line {reader.line_num}: {error}"]) from None


def _settings(tenant: int, lines: list[Line]) -> list[Setting]:
    """Returns what the lines ask for. Raises BadLines telling every line that is wrong."""
    console = Console(stderr=True)
    shown = track(lines, "Checking", console=console, disable=not console.is_terminal)
    options = inventory.options(tenant)
    found: list[Setting] = []
    errors: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    for line in shown:
        try:
            setting = _setting(options, line)
        except ValueError as error:
            errors.append(f"line {line.number}: {error}")
            continue
        first = seen.setdefault((setting.option_code, setting.date), line.number)
        if first != line.number:
            errors.append(f"line {line.number}: same option and date as line {first}")
        found.append(setting)
    if errors:
        raise BadLines(errors)
    return found


def _setting(options: dict[str, str], line: Line) -> Setting:
    cells, field = line.cells, f"line {line.number}:"
    option = options.get(cells.get("option_code", "").lower() or cells.get("sku", ""))
    if option is None:
        raise ValueError("option_code or sku is not registered")
    try:
        inventory.real_day("date", cells["date"])
    except InvalidField as refusal:
        raise ValueError(str(refusal)) from None
    units = cells["max_quantity"]
    if not (units.isascii() and units.isdigit() and int(units) <= inventory.MAX_UNITS):
        raise ValueError(f"max_quantity must be a whole number up to {inventory.MAX_UNITS}")
    return Setting(field, option, cells["date"], int(units), cells.get("inventory_code", ""))
