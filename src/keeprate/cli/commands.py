"""What each command does.

All imports of other packages stay inside the functions: `--help` is instant, a wrong option is
refused before PyTorch is imported (which takes seconds), and Ctrl-C is heard from the start.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from keeprate.cli.torchrun import followed, leading, refuse_processes
from keeprate.errors import InputError, invalid
from keeprate.stopping import Stopped, hearing_signals
from keeprate.text import visible

if TYPE_CHECKING:  # `flattened` reads these names in the signatures
    from keeprate.cli.options import (
        AllProbabilities,
        Baselines,
        DecisionsFile,
        FixedData,
        Inputs,
        IssuesFile,
        JudgedLabels,
        Label,
        Link,
        Model,
        MovedData,
        OnnxFile,
        PairsOption,
        PicturesOption,
        Precision,
        PredictionsFile,
        ReportFile,
        Rows,
        RunFolder,
        RunFolders,
        RunOptions,
        ScheduleOption,
        SearchOptions,
        Sources,
        Top,
        VerificationFile,
    )
    from keeprate.data import Data
    from keeprate.engine import Metric
    from keeprate.runs import Run

Result = TypeVar("Result")
WRONG_INPUT = 2  # exit code
_plain_warning = warnings.formatwarning


def search_command(search: SearchOptions, options: RunOptions) -> None:
    """Search the keep-rate schedule R(t), and train with the best one."""
    refuse_processes("keeprate search", "use --cluster, which trains several candidates at once")
    search_config = search.config()
    _check_names(options, search.baselines)
    from keeprate.searching import Budget, check_add_trials, get_searchable, plan_search
    from keeprate.searching import search as start

    get_searchable(options.method)  # raises

    special: dict[str, Any] = {"budget": search.budget, "search_config": search_config}
    if search.add_trials is not None:
        check_add_trials(search.add_trials, options.out, Budget.parse(search.budget))
        special["add_trials"] = search.add_trials
    if search.storage is not None:
        special["storage"] = search.storage
    if search.plan:
        from keeprate.cli.console import show_plan
        from keeprate.records import is_finished

        plan = _begin(plan_search, options, search.baselines, **special)
        is_done = search.add_trials is None and is_finished(Path(options.out))
        show_plan(plan, options.out, is_done=is_done)
        return
    _complete(start, options, search.baselines, **special)


def train_command(
    options: RunOptions, schedule: ScheduleOption = "auto", baselines: Baselines = "none"
) -> None:
    """Train without a search: chosen by cross-fitting, or with a known schedule."""
    from keeprate.schedules import named_schedule

    if schedule not in ("auto", "co-teaching"):  # both need the noise rate of the data
        named_schedule(schedule, options.epochs, noise_rate=None)
    _check_names(options, baselines)
    from keeprate.runs import train as start

    if options.cluster is not None:
        refuse_processes("a training by --cluster", "leave out either of the two")
    with leading() as processes:
        _complete(start, options, baselines, schedule=schedule, processes=processes)


def _check_names(options: RunOptions, baselines: str) -> None:
    """Refuse names that only PyTorch's side knows, before the data are loaded."""
    from keeprate.engine import get_method, get_model

    method = get_method(options.method)
    get_model(options.model)
    options.training_config().resolve_device()
    from keeprate.runs import get_baselines

    get_baselines(baselines, method)


def _complete(
    start: Callable[..., Run], options: RunOptions, baselines: str, **special: Any
) -> None:
    """Load the data, run, and say what came out; see `_begin`."""
    from keeprate.cli.console import conclude

    run = _begin(start, options, baselines, **special)
    conclude(run, is_quiet=options.quiet, baselines=baselines)


def _begin(
    start: Callable[..., Result], options: RunOptions, baselines: str, **special: Any
) -> Result:
    """Load the data, say what they are, and run; what came out.

    Parameters
    ----------
    start : callable
        `keeprate.search`, `keeprate.plan_search` or `keeprate.train`.
    options : RunOptions
    baselines : str
    **special
        What only one of the two takes.
    """
    from keeprate.cli.console import introduce, say, shown_progress
    from keeprate.engine import TrainingConfig

    data = _load(options)
    if not options.quiet:
        introduce(data)
        if len(data.train) < options.batch_size == TrainingConfig.batch_size:
            say("few samples: one batch holds all that train; --batch-size gives more steps")
    if options.restarts is not None:
        special["restarts"] = options.restarts
    special |= {"metric": options.metric, "positive": options.positive}
    if options.pairs is not None:
        special["metric"] = _pair_accuracy(options.pairs, options.pair_images, data)
    with shown_progress(is_quiet=options.quiet) as progress:
        return start(
            data,
            method=options.method,
            model=options.model,
            config=options.training_config(),
            noise_rate=options.noise_rate,
            baselines=baselines,
            seed=options.seed,
            out=options.out,
            lockstep=options.candidates_in_lockstep(),
            tensorboard=options.tensorboard,
            cluster=options.cluster,
            progress=progress or False,
            after=options.after,
            command=_typed(special.get("storage")),
            **special,
        )


def _typed(storage: str | None) -> str:
    """The command as typed, but for the password of a database."""
    arguments = sys.argv[1:]
    if storage is not None:
        from keeprate.searching import Database

        shown = str(Database.parse(storage))
        arguments = [one.replace(storage, shown) for one in arguments]
    return shlex.join(["keeprate", *arguments])


def _pair_accuracy(pairs: str, images: str | None, data: Data) -> Metric:
    """What scores face networks: pairs of people whom they have not seen."""
    from keeprate.cli.console import say
    from keeprate.engine import PairAccuracy
    from keeprate.verification import load_pairs

    if len(data.input_shape) != 3:
        raise invalid("pairs", "be left out, as the inputs are no images", pairs, "leave it out")
    channels, height, width = data.input_shape
    found = load_pairs(pairs, images=images, image_size=(height, width), channels=channels)
    for note in found.notes:
        say(note)
    return PairAccuracy(found)


def _load(options: RunOptions) -> Data:
    from keeprate.cli.console import shown_progress
    from keeprate.cli.options import names_typed
    from keeprate.data import load_data, prepare

    with shown_progress(is_quiet=options.quiet) as progress:
        loaded = load_data(
            options.data,
            inputs=names_typed(options.inputs),
            columns=options.kinds(),
            votes=names_typed(options.votes),
            image_size=options.parsed_image_size(),
            normalise=options.normalise,
            label=options.label,
            true_label=options.true_label,
            progress=progress,
        )
    # Where pairs of other people score, the classes need few samples of their own.
    is_cut_small = options.pairs is not None and len(loaded.splits) == 1
    return prepare(
        loaded,
        n_validation=0.05 if is_cut_small else None,
        n_test=0 if is_cut_small else None,
        text_model=options.text_model,
        noise=options.parsed_noise(),
        seed=options.seed,
        limit=options.limit,
        validation=options.validation,
    )


def predict_command(
    run: RunFolder,
    data: Sources,
    out: PredictionsFile = None,
    label: Label = None,
    inputs: Inputs = None,
    probabilities: AllProbabilities = False,
    model: Model = None,
) -> None:
    """Predict the class of each row of DATA with the networks of a run."""
    from keeprate.cli.options import check_run, check_source, names_typed

    check_run(run)
    for source in data:
        check_source(source)
    from keeprate.cli.console import say
    from keeprate.runs import predict_files

    path = out or Path(run) / "predictions.csv"
    found = predict_files(
        run,
        data,
        path,
        inputs=names_typed(inputs),
        label=label,
        with_probabilities=probabilities,
        model=model,
    )
    for note in found.notes:
        say(note)
    say(f"{found.n_rows:,} predictions written to {path}")
    if found.n_scored:
        share = found.n_right / found.n_scored
        of_all = "" if found.n_scored == found.n_rows else f" {found.n_scored:,} of the"
        say(f"accuracy against{of_all} labels in {', '.join(data)}: {share:.2%}")
    elif found.has_labels:
        say(f"no label in {', '.join(data)} is a class of the run, so there is no accuracy")


def export_command(run: RunFolder, out: OnnxFile, model: Model = None) -> None:
    """Write the classifier of a run to an ONNX file, for other languages and runtimes."""
    from keeprate.cli.options import check_run
    from keeprate.errors import needs

    check_run(run)
    if out.suffix != ".onnx":
        raise invalid("FILE", "end in .onnx", str(out), "write model.onnx, say")
    needs("onnx", extra="onnx")
    from keeprate.cli.console import say
    from keeprate.runs import export_onnx

    difference = export_onnx(run, out, model=model)
    checked = "not compared with PyTorch, as onnxruntime is not installed"
    if difference is not None:
        checked = f"its probabilities differ from PyTorch's by {difference:.0e} at most"
    say(f"classifier written to {out}; {checked}")


def issues_command(
    source: JudgedLabels,
    out: IssuesFile = None,
    top: Top = 20,
    precision: Precision = None,
    rows: Rows = None,
) -> None:
    """List the labels that look wrong, the most suspect first."""
    from keeprate.cli.options import check_judged_labels

    check_judged_labels(source)
    if out is not None and out.suffix not in (".csv", ".parquet", ".json"):
        raise invalid("out", "end in .csv, .parquet or .json", str(out), "choose one")
    from keeprate.cli.console import list_issues, say
    from keeprate.records import load_label_quality

    quality, class_names = load_label_quality(source)
    listed = quality.listed(precision=precision, rows=rows)
    list_issues(listed, len(quality.rows), class_names, top)
    if out is not None:
        is_chosen = precision is not None or rows is not None
        written = listed if is_chosen else quality
        written.save(out, class_names)
        say(f"{'' if is_chosen else 'all '}{len(written.rows):,}, ranked, written to {out}")


def apply_command(
    run: RunFolder,
    decisions: DecisionsFile,
    out: FixedData,
    data: MovedData = None,
    link: Link = False,
) -> None:
    """Write the data of a run anew, with what was decided on labels in its report."""
    from keeprate.cli.options import check_out, check_places, check_run

    check_run(run)
    check_places(DECISIONS=str(decisions), data=None if data is None else str(data))
    if out.suffix == "":
        check_out(str(out))
    from keeprate.cli.console import say
    from keeprate.records import apply_decisions

    done = apply_decisions(run, decisions, out, data=data, link=link)
    say(f"labels changed {done.n_changed:,}, kept {done.n_kept:,}; rows dropped {done.n_dropped:,}")
    say(f"{done.source} stays as it is; written to {done.out}")


def verify_command(
    run: RunFolder,
    pairs: PairsOption,
    images: PicturesOption = None,
    out: VerificationFile = None,
    model: Model = None,
) -> None:
    """Judge pairs of faces by the networks of a run: is it one person or not."""
    from keeprate.cli.options import check_places, check_run

    check_run(run)
    check_places(PAIRS=pairs, images=images)
    if out is not None and out.suffix != ".json":
        raise invalid("out", "end in .json", str(out), "write lfw.json, say")
    from keeprate.cli.console import list_verification, say
    from keeprate.records import verification_file
    from keeprate.runs import verify_run

    record = verify_run(run, pairs, images=images, out=out, model=model)
    list_verification(record)
    path = verification_file(Path(run), record.name) if out is None else out
    more = f"; keeprate report {run} shows it" if out is None else ""
    say(f"written to {path} and {path.with_suffix('.png').name}{more}")


def report_command(runs: RunFolders, out: ReportFile = Path("report.html")) -> None:
    """Put finished runs on one page, with pictures and suspect labels."""
    from keeprate.cli.options import check_run

    for run in runs:
        check_run(run)
    from keeprate.cli.console import say
    from keeprate.report import write_report

    write_report([Path(run) for run in runs], out)
    say(f"{len(runs)} run{'s' if len(runs) > 1 else ''} in {out}")


COMMANDS = (
    search_command,
    train_command,
    predict_command,
    export_command,
    issues_command,
    apply_command,
    verify_command,
    report_command,
)


def main() -> NoReturn:
    """Run the command and exit.

    The exit code is 2 if the user can mend what is wrong, 130 after Ctrl-C and 143 after SIGTERM.
    Each is explained in one line on standard error.
    """
    if (code := followed(sys.argv[1:])) is not None:
        sys.exit(code)
    _show_warnings_visibly()
    with hearing_signals() as signals:
        try:
            from keeprate.cli.application import make_application, refuse_replaced

            refuse_replaced(sys.argv[1:])
            make_application(COMMANDS)(prog_name="keeprate")  # exits
        except InputError as error:
            _end(str(error), WRONG_INPUT)
        except Stopped as stopped:
            signals.ignore()
            _end("stopped; the same command continues", stopped.exit_code)
    sys.exit(0)


def _show_warnings_visibly() -> None:
    """Warnings may name files and quote data, as error messages do."""
    warnings.formatwarning = lambda *values, **more: visible(_plain_warning(*values, **more))


def _end(message: str, code: int) -> NoReturn:
    print(f"keeprate: {visible(message)}", file=sys.stderr, flush=True)
    sys.exit(code)
