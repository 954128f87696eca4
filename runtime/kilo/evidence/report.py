"""The report: one HTML page without scripts and without anything from elsewhere, readable on paper.

A pure function of the pack's raw data, which stands beside it: every figure of the page is in a file there.
All text is escaped; names come from others.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kilo.evidence.graphs import Graph, draw

_STYLE = Path(__file__).with_name("report.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_COLOURED = {"met", "missed", "unknown", "holds", "absent", "passed", "failed"}
_DIGEST_LENGTH = 32
"""Characters from which a word without spaces is set as a digest."""

Part = Mapping[str, Any]


def render(facts: Part, parts: Mapping[str, Part], graphs: Sequence[Graph], files: Mapping[str, str]) -> str:
    """The page.

    Args:
        facts: of the manifest: stage, time, program, soak factor.
        parts: the raw data by its name.
        graphs: drawn in their order.
        files: SHA-256 by name of every file beside the report.
    """
    sections = [
        ("goals", "Goals", _goals(parts["goals"])),
        ("risks", "Risks and their mitigations", _risks(parts["risks"])),
        ("gates", "Promotions, gates and approvals", _gates(parts["gates"])),
        ("events", "Events: outbox, change capture, replays", _events(parts["events"], parts["replays"])),
        ("encryption", "Field encryption and rotation", _encryption(parts["encryption"])),
        ("mirror", "Registry mirror: attestations and SBOMs", _mirror(parts["mirror"])),
        ("ramps", "Tenant ramps", _ramps(parts["ramps"])),
        ("preview", "A new service and its preview", _previews(parts["previews"])),
        ("graphs", "Graphs", _graphs(graphs)),
        ("program", "Program and stage", _program(parts["program"], parts["outputs"])),
        ("files", "Files and how to check them", _files(facts, files)),
    ]
    stage = html.escape(str(facts["stage"]))
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{title}</h2>{text}</section>' for name, title, text in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Acceptance evidence: {stage}</title>"
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body>"
        f"<header><h1>Acceptance evidence: stage {stage}</h1>"
        f'<p class="sub">{_time(facts["since"])} to {_time(facts["until"])} UTC, program '
        f"<code>{html.escape(str(facts['program']))}</code></p>{_banner(facts)}{_tiles(parts)}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}</main></body></html>\n'
    )


def _banner(facts: Part) -> str:
    factor = float(facts["soak_factor"])
    if factor == 1:
        return ""
    return (
        f'<p class="banner" role="note">SOAK TIMES SCALED BY {factor:g}'
        f"<small>Where the gates ask for an hour of soak, {_seconds(3600 * factor)} were waited. This shows "
        "that the path works, and not that the release is stable.</small></p>"
    )


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def _tiles(parts: Mapping[str, Part]) -> str:
    goals = [row["verdict"] for row in parts["goals"].get("rows", ())]
    risks = [row["state"] for row in parts["risks"].get("rows", ())]
    counts = (
        ("goals met", goals.count("met"), len(goals)),
        ("goals missed", goals.count("missed"), None),
        ("goals not known", goals.count("unknown"), None),
        ("mitigations that hold", risks.count("holds"), len(risks)),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f"<div><b>{count}{f' of {of}' if of is not None else ''}</b><span>{what}</span></div>"
            for what, count, of in counts
        )
        + "</div>"
    )


def _goals(part: Part) -> str:
    rows = [
        (
            row["asks"],
            row["verdict"],
            row["shown"],
            row["bound"],
            row["trend"],
            _time(row["sampled_at"]) if row["sampled_at"] else "-",
            row["source"] if not row["reason"] else f"{row['source']}: {row['reason']}",
        )
        for row in part.get("rows", ())
    ]
    names = ("goal", "verdict", "figure", "bound", "trend", "newest sample, UTC", "source")
    return _trouble(part) + _table(names, rows, numbers={2, 3, 4})


def _risks(part: Part) -> str:
    rows = [(row["risk"], row["mitigation"], row["state"], row["evidence"]) for row in part.get("rows", ())]
    return _trouble(part) + _table(("risk", "mitigation", "state", "evidence"), rows)


def _gates(part: Part) -> str:
    gates = part.get("gates", ())
    text = "".join(
        f"<h3>From {html.escape(str(gate['from']))} to {html.escape(str(gate['to']))}: "
        f'<span class="{gate["verdict"]}">{gate["verdict"]}</span></h3>'
        + _table(
            ("check", "verdict", "figure", "bound", "window", "newest sample, UTC", "query"),
            [
                (
                    row["check"],
                    row["verdict"],
                    row["shown"],
                    row["bound"],
                    row["window"],
                    _time(row["sampled_at"]) if row["sampled_at"] else "-",
                    row["query"] if not row["reason"] else f"{row['query']}: {row['reason']}",
                )
                for row in gate["checks"]
            ],
            numbers={2, 3},
        )
        for gate in gates
    )
    names = ("at", "who", "what", "about", "approved by", "reason")
    rows = [[row[name] for name in names] for row in part.get("rows", ())]
    return _trouble(part) + text + "<h3>Recorded in the audit log</h3>" + _table(names, rows)


def _events(part: Part, replays: Part) -> str:
    names = ("tenant", "events", "by_worker", "by_cdc", "duplicates", "parked", "missing")
    rows = [[row[name] for name in names] for row in part.get("rows", ())]
    shown = ("id", "tenant", "kind", "state", "attempts", "replays", "first_at", "last_at", "trace_id")
    letters = [[row[name] for name in shown] for row in replays.get("rows", ())]
    return (
        _trouble(part)
        + _table(names, rows, numbers=set(range(1, 7)))
        + "<h3>Dead letters and replays</h3>"
        + _trouble(replays)
        + _table(shown, letters)
    )


def _encryption(part: Part) -> str:
    keys = ("key", "tenant", "purpose", "version", "state", "created_at", "kms_keys")
    rotations = (
        "plan",
        "tenant",
        "kind",
        "state",
        "requester",
        "approvers",
        "old_key",
        "new_key",
        "finished_at",
    )
    lying = ("tenant", "table", "field", "under", "values")
    proofs = ("entry", "at", "action", "subject", "details")
    pieces = [_trouble(part)]
    for title, names, member in (
        ("Stored values by what they lie under", lying, "coverage"),
        ("Data keys, each wrapped by the KMS keys named", keys, "keys"),
        ("Rotations", rotations, "rotations"),
        ("Proofs: before and after of each column, from the audit log", proofs, "proofs"),
    ):
        rows = [[row[name] for name in names] for row in part.get(member, ())]
        pieces.append(f"<h3>{title}</h3>{_table(names, rows)}")
    return "".join(pieces)


def _mirror(part: Part) -> str:
    images = [
        (
            image["image"],
            image["digest"],
            "passed" if image["same_everywhere"] else "failed",
            image["components"],
            len(image["attestations"]),
            "; ".join(f"{each['place']}: {each['kind']}: {each['detail']}" for each in image["differences"]),
        )
        for image in part.get("images", ())
    ]
    claims = [
        (image["image"], each["subject"], each["kind"], each["checksum"], each["signed_by"])
        for image in part.get("images", ())
        for each in image["attestations"]
    ]
    left_out = part.get("left_out", 0)
    more = f'<p class="note">{left_out} older tags are not shown.</p>' if left_out else ""
    places = ", ".join(part.get("places", ()))
    return (
        _trouble(part)
        + f"<p>Compared: {html.escape(places)}.</p>"
        + _table(("image", "digest", "parity", "SBOM entries", "attestations", "differences"), images)
        + more
        + "<h3>Attestations by their checksums</h3>"
        + _table(("image", "subject", "kind", "checksum", "signed by"), claims)
    )


def _ramps(part: Part) -> str:
    names = ("at", "tenant", "feature", "act", "from", "to", "who", "reason", "seconds")
    return _trouble(part) + _table(names, [[row[name] for name in names] for row in part.get("rows", ())])


def _previews(part: Part) -> str:
    rows = [
        (
            row.get("service", ""),
            _time(row.get("ended_at", 0)),
            f"{row.get('seconds', 0):.0f} s",
            ", ".join(f"{check.get('check')}: {check.get('state')}" for check in row.get("checks", ())),
        )
        for row in part.get("rows", ())
    ]
    return _trouble(part) + _table(("service", "ended, UTC", "took", "checks"), rows)


def _graphs(graphs: Sequence[Graph]) -> str:
    pieces: list[str] = []
    page = ""
    for graph in graphs:
        if graph.page != page:
            pieces.append(f'{"</div>" if page else ""}<h3>{html.escape(graph.page)}</h3><div class="graphs">')
            page = graph.page
        pieces.append(f"<figure><h4>{html.escape(graph.title)}</h4>{draw(graph)}</figure>")
    return "".join(pieces) + ("</div>" if pieces else "")


def _program(part: Part, outputs: Part) -> str:
    names = ("version", "kind", "result", "started_at", "ended_at", "commit", "uncommitted", "changes")
    rows = [[row[name] for name in names] for row in part.get("updates", ())]
    listed = [(name, value) for name, value in _flat("", outputs.get("outputs", {}))]
    return (
        "<h3>Updates by the engine</h3>"
        + _trouble(part)
        + _table(names, rows)
        + "<h3>Outputs of the stack</h3>"
        + _trouble(outputs)
        + _table(("output", "value"), listed)
    )


def _flat(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, inner in enumerate(value):
            yield from _flat(f"{name}[{number}]", inner)
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _files(facts: Part, files: Mapping[str, str]) -> str:
    stage = html.escape(str(facts["stage"]))
    return (
        f"<p>Signed by the key <code>{html.escape(str(facts['audit_key']))}</code> as "
        f"<code>kilo/{stage}/evidence</code>. An auditor brings that key from the reviewed configuration of "
        "the stage, and checks offline that nothing was altered, added or left out, and that the audit log's "
        "chain, checkpoint and signatures hold:</p>"
        f"<p><code>kilo evidence verify FILE --stage {stage} --public-key KEY --principal NAME=KEY</code></p>"
        f'<p class="note">{facts["removed"]} pieces of text were removed because they looked like a secret '
        f"or like personal data; {facts['withheld']} entries of the audit log stand as their hash alone.</p>"
        + _table(("file", "SHA-256"), sorted(files.items()))
    )


def _trouble(part: Part) -> str:
    said = part.get("trouble")
    return f'<p class="missed" role="alert">Not known: {html.escape(str(said))}</p>' if said else ""


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Iterable[int] = ()) -> str:
    if not rows:
        return '<p class="none">None in this time.</p>'
    right = set(numbers)
    head = "".join(f'<th scope="col">{html.escape(name.replace("_", " "))}</th>' for name in names)
    lines = "".join(
        "<tr>" + "".join(_cell(value, number in right) for number, value in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(value: Any, number: bool) -> str:
    text = _text(value)
    if text in _COLOURED:
        return f'<td class="{text}">{text}</td>'
    escaped = html.escape(text)
    if len(text) >= _DIGEST_LENGTH and " " not in text.strip():
        escaped = f'<span class="digest">{escaped}</span>'
    return f'<td class="number">{escaped}</td>' if number else f"<td>{escaped}</td>"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
