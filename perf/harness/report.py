"""Medians over rounds, as a Markdown table, a JSON file, and perf/RESULTS.md."""

import json
import os
import platform
import re
import statistics
import subprocess
import time

from .proxies import FLOORS, PEERS
from .site import PERF, REPOSITORY

COLUMNS = [
    # figure, heading, format
    ("throughput", "per s", "{:,.0f}"),
    ("gb_per_s", "GB/s", "{:.2f}"),
    ("cpu_us", "CPU µs", "{:.1f}"),
    ("cpu_s_per_gb", "CPU s/GB", "{:.3f}"),
    ("cpu_share", "CPU share", "{:.0%}"),
    ("p50_ms", "p50 ms", "{:.2f}"),
    ("p99_ms", "p99 ms", "{:.2f}"),
    ("start_ms", "start ms", "{:,.0f}"),
    ("start_cpu_ms", "start CPU ms", "{:,.0f}"),
    ("reload_ms", "reload ms", "{:,.0f}"),
    ("reload_cpu_ms", "reload CPU ms", "{:,.0f}"),
    ("bytes_per_connection", "bytes each", "{:,.0f}"),
    ("idle_cpu_ms_per_s", "idle CPU ms/s", "{:.1f}"),
    ("empty_mb", "empty MB", "{:.1f}"),
    ("rss_mb", "RSS MB", "{:.1f}"),
    ("reloaded_mb", "reloaded MB", "{:.1f}"),
    ("peak_mb", "peak MB", "{:.1f}"),
    ("worker_mb", "MB per further worker", "{:.1f}"),
    ("reloads", "reloads", "{:.0f}"),
    ("upstream_opened", "upstream opened", "{:,.0f}"),
    ("errors", "errors", "{:,.0f}"),
    ("foreign_share", "others' CPU", "{:.0%}"),
]

FOREIGN_SHARE_MAX = 0.5
"""A round in which others used more of the machine than this says nothing about the proxy."""


def medians(rounds):
    """Figure by figure, of the quiet rounds; `errors` is the sum over all, since one failed round must not vanish."""
    used = quiet(rounds)
    names = {name for figures in used for name in figures}
    found = {name: statistics.median(figures[name] for figures in used if name in figures) for name in names}
    if "errors" in found:
        found["errors"] = sum(figures["errors"] for figures in rounds)
    return found


def quiet(rounds):
    """The rounds that others left half of the machine to; all of them if none is."""
    return [figures for figures in rounds if figures.get("foreign_share", 0) <= FOREIGN_SHARE_MAX] or rounds


def spread(rounds, figure):
    """Largest less smallest, as a share of the median; a dash for a single round."""
    values = [figures[figure] for figures in quiet(rounds) if figure in figures]
    middle = statistics.median(values) if values else 0
    return f"{(max(values) - min(values)) / middle:.0%}" if middle and len(values) > 1 else "–"


def ratio(results, figure):
    """The best peer's median over portcullis': above 1, portcullis needs less. None without both."""
    middles = {name: medians(rounds).get(figure) for name, rounds in results.items() if rounds}
    peers = {name: middles[name] for name in PEERS if middles.get(name)}
    if not peers or not middles.get("portcullis"):
        return None
    best = min(peers, key=peers.get)
    return best, peers[best] / middles["portcullis"]


def workload_table(workload, results, failures):
    """One workload as Markdown: a heading, a table with a row per proxy, the ratio."""
    middles = {name: medians(rounds) for name, rounds in results.items() if rounds}
    columns = [column for column in COLUMNS if any(column[0] in row for row in middles.values())]
    heading = dict((figure, title) for figure, title, _ in COLUMNS).get(workload.main, workload.main)
    lines = [f"### {workload.name}: {workload.title}", ""]
    titles = ["", *(f"**{title}**" if figure == workload.main else title for figure, title, _ in columns),
              f"spread of {heading}"]
    lines += [_row(titles), _row(["---"] * len(titles))]
    for name, row in middles.items():
        cells = [form.format(row[figure]) if figure in row else "–" for figure, _, form in columns]
        lines.append(_row([name, *cells, spread(results[name], workload.main)]))
    found = ratio(results, workload.main)
    if found:
        lines += ["", f"Best peer / portcullis, {heading}: **{found[1]:.2f}** ({found[0]})."]
    loud = {name: len(rounds) - len(quiet(rounds)) for name, rounds in results.items()}
    lines += [f"\n{name}: {count} of {len(results[name])} rounds left out, others used too much of the machine."
              for name, count in loud.items() if count]
    lines += [f"\n{name} failed: {text}" for name, text in failures.items()]
    return "\n".join(lines) + "\n"


def summary_table(workloads, results):
    """Every workload in one row: the main figure of each proxy and the ratio."""
    names = [name for name in ("portcullis", *PEERS, *FLOORS) if any(results[w.name].get(name) for w in workloads)]
    titles = ["workload", "figure", *names, "best peer / portcullis"]
    lines = [_row(titles), _row(["---"] * len(titles))]
    forms = {figure: (title, form) for figure, title, form in COLUMNS}
    for workload in workloads:
        title, form = forms[workload.main]
        rows = [medians(results[workload.name].get(name) or [{}]) for name in names]
        cells = [_main_cell(row, workload.main, form) for row in rows]
        found = ratio(results[workload.name], workload.main)
        lines.append(_row([workload.name, title, *cells, f"{found[1]:.2f}" if found else "–"]))
    return "\n".join(lines) + "\n"


def _main_cell(row, figure, form):
    """The main figure; errors beside it, since a fast refusal is no speed."""
    if figure not in row:
        return "–"
    errors = f" ({row['errors']:,} errors)" if row.get("errors") else ""
    return form.format(row[figure]) + errors


def circumstances(command_line, binaries):
    """What has to be known to repeat the run."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _output("git", "-C", REPOSITORY, "describe", "--always", "--dirty", "--abbrev=12"),
        "machine": f"{os.cpu_count()} x {_processor()}, {_memory_gb():.0f} GB",
        "kernel": platform.release(),
        "command": command_line,
        "versions": {name: _version(name, path) for name, path in binaries.items()},
    }


def markdown(facts, workloads, results, failures):
    """The whole report."""
    lines = ["# Results", "", f"- date: {facts['date']}", f"- commit: `{facts['commit']}`",
             f"- machine: {facts['machine']}", f"- kernel: {facts['kernel']}", f"- command: `{facts['command']}`"]
    lines += [f"- {name}: {version}" for name, version in facts["versions"].items() if version]
    lines += ["", "Medians over rounds; README.md says what each figure means and how much of a difference is noise.",
              "", "## Summary", "", summary_table(workloads, results), "## Workloads", ""]
    lines += [workload_table(workload, results[workload.name], failures[workload.name]) for workload in workloads]
    return "\n".join(lines)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def write_json(path, facts, results, failures):
    write(path, json.dumps({**facts, "results": results, "failures": failures}, indent=1) + "\n")


def results_path():
    return os.path.join(PERF, "RESULTS.md")


def _row(cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _version(name, path):
    option = {"nginx": "-v", "haproxy": "-v", "wrk": "-v", "envoy": "--version", "portcullis": "-V"}.get(name)
    if option is None:
        return ""
    text = _output(path, option)
    if name == "portcullis":
        return text
    found = re.search(r"(\d+\.\d+\.\d+[\w.~+-]*)", text)
    return found.group(1) if found else text


def _output(*command):
    """stdout and stderr: some print their version there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return " ".join(lines[:3])


def _processor():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
