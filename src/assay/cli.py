"""The command line: arguments in, text or JSON out. Everything else is in `assay.lab`."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

MARKS = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not decided": "dim"}


class Parser(argparse.ArgumentParser):
    """Bad input is one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"assay: {message}; see `{self.prog} --help`\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(prog="assay", description="Re-test what deep-learning papers claim, on your own machine.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    def command(name: str, about: str, json_too: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        if json_too:
            sub.add_argument("--json", action="store_true", help="machine-readable output on standard output")
        return sub

    sub = command("list", "List the studies.")
    sub.add_argument("--domain", help="only this domain")

    sub = command("show", "Show one study: paper, arms, claims, mechanisms, config.")
    sub.add_argument("study", metavar="ID")

    def run_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--executor", default="processes", help="processes (default), inline or ray")
        sub.add_argument("--workers", type=int, help="processes (default: as many as cores)")
        sub.add_argument("--address", help="address of a Ray cluster (default: a local one)")
        sub.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N or mps")
        sub.add_argument("--results", help="folder of results (default: ASSAY_RESULTS, else ./results)")
        sub.add_argument("--time-limit", type=float, help="seconds after which one unit of work is given up")
        sub.add_argument("--extras", action="store_true", help="also the arms that answer open questions")

    sub = command("run", "Run studies and decide their claims.")
    sub.add_argument("study", metavar="ID", nargs="*")
    sub.add_argument("--all", action="store_true", help="every study")
    sub.add_argument("--profile", default="laptop", help="smoke, demo, laptop (default) or paper")
    sub.add_argument("--seeds", type=int, help="seeds per arm instead of the study's own number")
    sub.add_argument("--first-seed", type=int, default=0, help="first seed (default 0, as published)")
    sub.add_argument("--arms", help="names or globs, separated by commas")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a config value")
    sub.add_argument("--log", help="live logging: tensorboard")
    run_options(sub)

    sub = command("verdicts", "The verdict on every claim, from the published evidence.")
    sub.add_argument("study", metavar="ID", nargs="*")

    sub = command("publish", "Run the laptop profile where needed and write the evidence.", json_too=False)
    sub.add_argument("study", metavar="ID", nargs="+")
    sub.add_argument(
        "--allow-dirty", action="store_true", help="publish although the source is not committed"
    )
    run_options(sub)

    command("status", "Is the evidence of each study fresh, stale or missing?").add_argument(
        "study", metavar="ID", nargs="*"
    )

    sub = command("site", "Write the web report: a folder that opens without a server.", json_too=False)
    sub.add_argument("--out", default="site", help="folder (default: ./site)")
    sub.add_argument("--open", action="store_true", help="open it in the browser")

    sub = command("new", "Write the skeleton of a new study, its test and its checklist.", json_too=False)
    sub.add_argument("study", metavar="ID")
    sub.add_argument("--domain", default="vision")
    sub.add_argument("--into", help="folder of studies outside the checkout (then set ASSAY_STUDIES to it)")

    sub = command("clean", "Delete results.", json_too=False)
    sub.add_argument("study", metavar="ID", nargs="*")
    sub.add_argument("--results", help="folder of results (default: ASSAY_RESULTS, else ./results)")
    sub.add_argument("--all", action="store_true", help="results of every study")

    command("catalogue", "Rewrite the file that `assay list` reads.", json_too=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Exit codes: 0 ran, 1 a trial failed or results could not be kept, 2 bad input, 130 interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.version:
        from assay import __version__

        print(__version__)
        sys.exit(0)
    if options.command is None:
        parser.print_help()
        sys.exit(0)
    signal.signal(signal.SIGTERM, _terminate)
    from assay.lab.errors import InputError
    from assay.lab.store import StoreError

    try:
        code = globals()[f"_{options.command}"](options)
        sys.stdout.flush()
    except InputError as error:
        _say(str(error))
        code = 2
    except StoreError as error:
        _say(str(error))
        code = 1
    except KeyboardInterrupt:
        _say("stopped; finished trials are kept, the same command goes on where it was")
        code = 130
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _say(text: str) -> None:
    print("assay: " + " ".join(text.split()), file=sys.stderr)


def _print_json(value: Any) -> None:
    from assay.lab.verdict import clean

    print(json.dumps(clean(value), ensure_ascii=False, indent=1))


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def _list(options: argparse.Namespace) -> int:
    from assay.lab import registry
    from assay.lab.errors import unknown

    entries = registry.catalogue()
    if options.domain:
        domains = sorted({entry["domain"] for entry in entries})
        if options.domain not in domains:
            raise unknown("domain", options.domain, domains)
        entries = [entry for entry in entries if entry["domain"] == options.domain]
    if options.json:
        _print_json(entries)
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("no.", "id", "domain", "claims", "title"):
        table.add_column(name, justify="right" if name in ("no.", "claims") else "left")
    for entry in entries:
        table.add_row(
            str(entry["number"]), entry["id"], entry["domain"], str(len(entry["claims"])), entry["title"]
        )
    _console().print(table)
    return 0


def _show(options: argparse.Namespace) -> int:
    from rich.markup import escape

    from assay.lab import registry
    from assay.lab.config import flat

    study = registry.load(options.study)
    if options.json:
        _print_json(study.describe() | {"config": flat(study.config)})
        return 0
    console = _console()
    console.print(
        f"[bold]{study.id}[/]  {escape(study.title)}\n{escape(study.paper.citation)} {study.paper.url}\n"
    )
    console.print("[bold]Arms[/]")
    for arm in study.all_arms.values():
        mark = " (extra)" if arm.extra else ""
        console.print(
            f"  {escape(arm.name)}{mark}  {escape(arm.about)}  [dim]{arm.seeds or study.seeds} seeds[/]"
        )
    console.print("\n[bold]Claims[/]")
    for claim in study.claims:
        console.print(f"  {claim.id}: {escape(claim.statement)}")
        console.print(
            f"    [dim]paper: {escape(claim.paper)}[/]\n    [dim]test: {escape(claim.test.text)}[/]"
        )
    console.print("\n[bold]Mechanisms[/]")
    for item, where in study.mechanisms.items():
        console.print(f"  {escape(item)}  [dim]{where if isinstance(where, str) else ', '.join(where)}[/]")
    console.print(f"\n[bold]Config[/] (laptop; profiles: {', '.join(study.profile_names)})")
    for name, value in flat(study.config).items():
        console.print(f"  {name} = {escape(str(value))}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from assay.lab import registry, runner
    from assay.lab.config import parse_assignments
    from assay.lab.errors import InputError, unknown
    from assay.lab.progress import display

    if options.all and options.study:
        raise InputError("give study ids or --all, not both")
    names = list(registry.modules()) if options.all else list(dict.fromkeys(options.study))
    if not names:
        raise InputError("which study? give an id (see `assay list`) or --all")
    if options.log not in (None, "tensorboard"):
        raise unknown("log", options.log, ["tensorboard"])
    studies = [registry.load(name) for name in names]
    arms = None if options.arms is None else [a.strip() for a in options.arms.split(",") if a.strip()]
    records, code = [], 0
    for study in studies:
        from assay.lab.store import results_root

        results = runner.run(
            study,
            options.profile,
            arms=arms,
            extras=options.extras,
            seeds=options.seeds,
            first_seed=options.first_seed,
            changes=parse_assignments(options.set),
            executor=options.executor,
            workers=options.workers,
            address=options.address,
            device=options.device,
            results=options.results,
            time_limit=options.time_limit,
            board=str(results_root(options.results) / study.id / "tensorboard") if options.log else "",
            display=display(),
        )
        code = max(code, 1 if results.failed else 0)
        if options.json:
            records.append(results.record())
        else:
            _print_results(results)
    if options.json:
        _print_json(records[0] if len(records) == 1 and not options.all else records)
    return code


def _print_results(results: Any) -> None:
    console = _console()
    new = [t for t in results.trials if not t.reused]
    console.print(
        f"\n[bold]{results.study.id}[/] ({results.profile}): {len(results.trials)} trials "
        f"({len(results.trials) - len(new)} finished before), {results.elapsed:.0f} s"
    )
    _print_verdicts(console, [v.record() for v in results.verdicts])
    for trial in results.failed:
        console.print(f"[red]{trial.arm} #{trial.seed} {trial.status}[/]: {trial.error}", markup=True)


def _print_verdicts(console: Any, rows: list[dict[str, Any]]) -> None:
    """Verdict and claim, then each test with its effect and interval, then the paper's own figure."""
    from rich.markup import escape
    from rich.padding import Padding

    for row in rows:
        console.print(f"[{MARKS[row['verdict']]}]{row['verdict']:>12}[/]  [bold]{row['claim']}[/]")
        lines = [f"{escape(part['test'])}: {_numbers(part)}" for part in _leaves(row) if part["test"]]
        if row.get("reason"):
            lines.append(escape(row["reason"]))
        lines.append(f"[dim]paper: {escape(row['paper'])}[/]")
        console.print(Padding("\n".join(line for line in lines if line), (0, 0, 0, 14), expand=False))


def _leaves(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The single tests that a (combined) test consists of."""
    parts = row.get("parts") or []
    if not parts:
        return [
            {
                "test": row.get("test") or row.get("text") or "",
                **{k: row.get(k) for k in ("effect", "interval")},
            }
        ]
    return [leaf for part in parts for leaf in _leaves(part)]


def _numbers(row: dict[str, Any]) -> str:
    if row["effect"] is None:
        return "no effect"
    interval = row["interval"]
    known = interval and None not in interval
    return f"{row['effect']:.4g}" + (f" \\[{interval[0]:.4g}, {interval[1]:.4g}]" if known else "")


def _ids(options: argparse.Namespace) -> list[str]:
    from assay.lab import registry
    from assay.lab.errors import unknown

    known = registry.modules()
    for name in options.study:
        if name not in known:
            raise unknown("study", name, known)
    order = [entry["id"] for entry in registry.catalogue()]
    return [name for name in order if not options.study or name in options.study]


def _verdicts(options: argparse.Namespace) -> int:
    from assay.lab import evidence

    rows = evidence.verdict_rows(_ids(options))
    if options.json:
        _print_json(rows)
    else:
        console = _console()
        for study in dict.fromkeys(row["study"] for row in rows):
            console.print(f"[bold underline]{study}[/]")
            _print_verdicts(console, [row for row in rows if row["study"] == study])
    return 0


def _publish(options: argparse.Namespace) -> int:
    from assay.lab import evidence, registry
    from assay.lab.progress import display

    studies = [registry.load(name) for name in options.study]
    code = 0
    for study in studies:
        published = evidence.publish(
            study,
            extras=options.extras,
            allow_dirty=options.allow_dirty,
            executor=options.executor,
            workers=options.workers,
            address=options.address,
            device=options.device,
            results=options.results,
            time_limit=options.time_limit,
            display=display(),
        )
        registry.write_catalogue()
        _print_results(published.results)
        print(f"published in {published.folder}")
        code = max(code, 1 if published.results.failed else 0)
    return code


def _status(options: argparse.Namespace) -> int:
    from assay.lab import evidence, registry

    rows = [evidence.freshness(registry.load(name)) for name in _ids(options)]
    if options.json:
        _print_json([{"study": r.study, "status": r.status, "reason": r.reason} for r in rows])
    else:
        width = max((len(row.study) for row in rows), default=0)
        for row in rows:
            print(f"{row.study:{width}}  {row.status:8} {row.reason}".rstrip())
    return 0


def _site(options: argparse.Namespace) -> int:
    from assay.lab import evidence, registry
    from assay.lab.errors import InputError
    from assay.lab.site import Entry, build

    entries = []
    for about in registry.catalogue():
        common = {k: about[k] for k in ("number", "id", "domain", "title")}
        try:
            study = registry.load(about["id"])
        except InputError as error:  # its page says why; the others are not held up
            entries.append(
                Entry(**common, study=None, evidence=None, status="missing", reason=str(error), page_text="")
            )
            continue
        fresh = evidence.freshness(study)
        entries.append(
            Entry(
                **common,
                study=study,
                evidence=evidence.load(study) if fresh.status != "missing" else None,
                status=fresh.status,
                reason=fresh.reason,
                page_text=registry.page_text(study),
            )
        )
    index = build(entries, Path(options.out))
    print(index)
    if options.open:
        import webbrowser

        webbrowser.open(index.absolute().as_uri())
    return 0


def _new(options: argparse.Namespace) -> int:
    from assay.lab.new import write_skeleton

    for path in write_skeleton(options.study, options.domain, Path(options.into) if options.into else None):
        print(path)
    return 0


def _clean(options: argparse.Namespace) -> int:
    from assay.lab.errors import InputError
    from assay.lab.store import Store

    if not options.study and not options.all:
        raise InputError("clean what? give study ids or --all")
    freed = Store(options.results).clean(None if options.all else _ids(options))
    print(f"freed {freed / 1e6:.1f} MB")
    return 0


def _catalogue(options: argparse.Namespace) -> int:
    from assay.lab import registry

    print(registry.write_catalogue())
    return 0


if __name__ == "__main__":
    main()
