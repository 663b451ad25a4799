"""Results worth keeping, and the README's tables made from them.

`facefit bench save OUT FILE` keeps a report without its rows; `facefit bench tables README.md` renews what
stands between `<!-- bench:NAME -->` and `<!-- /bench -->` from results/NAME.json, so that no figure is typed
by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facefit.benchmarks.report import markdown
from facefit.benchmarks.run import write_json
from facefit.errors import UnreadableInput

KEPT = ("headline", "settings", "provenance", "coverage", "columns", "table", "extra")
BLOCK = re.compile(r"(<!-- bench:([\w-]+)(?: columns=([^>]*?))? -->\n).*?(<!-- /bench -->)", re.DOTALL)


def save(out: Path, target: Path) -> None:
    """The report of a run without its rows (they are large, and name files of this machine)."""
    value = _read(out / "report.json" if out.is_dir() else out)
    kept = {name: value[name] for name in KEPT if name in value}
    kept["failures"] = len(value.get("failures", []))
    write_json(target, kept)


def table(value: Mapping[str, Any], columns: str | None = None) -> str:
    """The stored table with headline and provenance; `columns` picks some, separated by commas."""
    headings = dict(value["columns"])
    if columns:
        wanted = [name.strip() for name in columns.split(",")]
        if unknown := [name for name in wanted if name not in headings]:
            raise UnreadableInput(f"no column {unknown[0]!r} in this result; it has {', '.join(headings)}")
        headings = {name: headings[name] for name in wanted}
    used = {k: v for k, v in headings.items() if any(row.get(k) is not None for row in value["table"])}
    made = value["provenance"]
    source = (
        f"commit {made.get('commit') or made['code_sha256']}, {made['system']}, {made['cpus']} cores, "
        f"torch {made.get('torch', '?')}, {made['date_utc'][:10]}"
    )
    head = f"{value['headline']} Coverage {value['coverage']}."
    return f"{head}\n\n{markdown(value['table'], used)}\n<sub>{source}</sub>\n"


def renew(document: Path, results: Path) -> list[str]:
    """Write the document anew where a table has changed; gives the names of the tables in it."""
    text = document.read_text(encoding="utf-8")
    found: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        found.append(match[2])
        value = _read(results / f"{match[2]}.json")
        return f"{match[1]}{table(value, match[3])}{match[4]}"

    new = BLOCK.sub(replaced, text)
    if new != text:
        document.write_text(new, encoding="utf-8")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableInput(f"{path}: not a benchmark's report ({error})") from error
    return value
