"""The command `keeprate`. Heavy imports stay inside the commands: `--help` is instant."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from keeprate.errors import InputError

if TYPE_CHECKING:
    from keeprate.data import Data
    from keeprate.engine import TrainingConfig
    from keeprate.runs import Run


app = typer.Typer(
    name="keeprate",
    help="Train classifiers on labels that are partly wrong: search the keep-rate schedule R(t), "
    "train with it, rank the labels that look wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DATA = "Data"
TRAINING = "Training"

DataArgument = Annotated[
    str,
    typer.Argument(
        help="'digits', a folder or file (Parquet, CSV, .npz, images in class folders), "
        "or a Hugging Face hub name."
    ),
]
Inputs = Annotated[
    str | None,
    typer.Option("--inputs", help="Input column(s), separated by commas.", rich_help_panel=DATA),
]
Label = Annotated[str | None, typer.Option("--label", help="Label column.", rich_help_panel=DATA)]
TrueLabel = Annotated[
    str | None,
    typer.Option(
        "--true-label",
        help="Column of true labels; never used to train or select.",
        rich_help_panel=DATA,
    ),
]
NoiseOption = Annotated[
    str,
    typer.Option(
        "--noise",
        help="Noise to add to the training labels: none, symmetric:RATE, pairflip:RATE, "
        "asymmetric-mnist:RATE (-cifar10, -cifar100), instance:RATE, matrix:FILE.",
        rich_help_panel=DATA,
    ),
]
NoiseRate = Annotated[
    float | None,
    typer.Option(
        "--noise-rate",
        help="Your estimate of the noise rate, for Co-teaching's own schedule (and for auto).",
        rich_help_panel=DATA,
    ),
]
Validation = Annotated[
    str,
    typer.Option(
        "--validation",
        help="auto, or noisy: use no clean label; validate on a part of the training samples, or "
        "on the source's own validation split if it has three.",
        rich_help_panel=DATA,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", help="Use only so many training samples.", rich_help_panel=DATA),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="mlp, model1, model2, model3 or package.module:factory.",
        rich_help_panel=TRAINING,
    ),
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="co-teaching, jocor, co-mining, mentornet (each also with -per-class: the same share "
        "of every class), co-teaching-plus or package.module:method; in train also standard, "
        "decoupling, f-correction.",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[int, typer.Option("--epochs", help="Epochs T.", rich_help_panel=TRAINING)]
BatchSize = Annotated[
    int, typer.Option("--batch-size", help="Batch size.", rich_help_panel=TRAINING)
]
OptimizerOption = Annotated[
    str, typer.Option("--optimizer", help="adam, sgd or rmsprop.", rich_help_panel=TRAINING)
]
LearningRate = Annotated[
    float, typer.Option("--learning-rate", help="Learning rate.", rich_help_panel=TRAINING)
]
LrSchedule = Annotated[
    str,
    typer.Option(
        "--learning-rate-schedule",
        help="linear-decay (to zero from 40 % of the epochs), constant or cosine.",
        rich_help_panel=TRAINING,
    ),
]
Precision = Annotated[
    str,
    typer.Option("--precision", help="auto, float32 or bfloat16.", rich_help_panel=TRAINING),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...", rich_help_panel=TRAINING)
]
TensorBoardOption = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Also write every training's curves to the folder tensorboard of the run folder.",
        rich_help_panel=TRAINING,
    ),
]
LockstepOption = Annotated[
    str,
    typer.Option(
        "--lockstep",
        help="Candidates that train in lockstep: auto (what fits in memory) or a number.",
        rich_help_panel=TRAINING,
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of noise, split, initial weights and search.")]
Out = Annotated[Path, typer.Option("--out", help="Run folder. The same command continues it.")]
BaselinesOption = Annotated[
    str,
    typer.Option(
        "--baselines",
        help="Methods to train as well, for comparison, with Co-teaching's own R(t) if they take "
        "one, which needs the noise rate: auto (standard and, if the noise rate is known, "
        "co-teaching), none, all, or names with commas between.",
    ),
]


Restarts = Annotated[
    int,
    typer.Option(
        "--restarts",
        help="Times that each final training is done, from other weights; the best on the "
        "validation samples is kept. Two schedules (the best of a search, or those of auto, which "
        "trains twice at least) take turns.",
        rich_help_panel=TRAINING,
    ),
]


@app.command("search")
def search_command(
    data: DataArgument,
    out: Out,
    noise: NoiseOption = "none",
    model: Model = "mlp",
    method: MethodOption = "co-teaching",
    space: Annotated[
        str,
        typer.Option("--space", help="basis, co-teaching, power-decay or full."),
    ] = "basis",
    sampler: Annotated[
        str, typer.Option("--sampler", help="natural-gradient, random, tpe, or paper:STEP.")
    ] = "natural-gradient",
    pruner: Annotated[
        str,
        typer.Option(
            "--pruner",
            help="Stop the worse trials early: none, halving (those that train together), or "
            "Optuna's median, successive-halving, hyperband.",
        ),
    ] = "none",
    trials: Annotated[
        int | None,
        typer.Option("--trials", help="Trainings to start.", show_default="40"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Instead of --trials: what the search may cost, in full trainings (6), or how "
            "long all may take (30m, 2h).",
        ),
    ] = None,
    fidelity: Annotated[
        float,
        typer.Option(
            "--fidelity",
            help="Try new schedules in this share of the epochs, all of R(t) in fewer; those that "
            "confirm train fully. Below 1 for large data sets and long trainings.",
        ),
    ] = 1.0,
    no_confirm: Annotated[
        bool,
        typer.Option(
            "--no-confirm",
            help="Try new schedules to the end. Else about a quarter of the trials (of 16 or more) "
            "trains the best ones again, and the choice is by the mean.",
        ),
    ] = False,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(
            "--warm-start",
            metavar="<path>",
            help="A schedule to try first, found on other data: a run folder, .json or .csv file. "
            "May be given several times.",
        ),
    ] = None,
    epochs: Epochs = 40,
    seed: Seed = 0,
    baselines: BaselinesOption = "auto",
    restarts: Restarts = 3,
    inputs: Inputs = None,
    label: Label = None,
    true_label: TrueLabel = None,
    noise_rate: NoiseRate = None,
    limit: Limit = None,
    validation: Validation = "auto",
    batch_size: BatchSize = 128,
    optimizer: OptimizerOption = "adam",
    learning_rate: LearningRate = 1e-3,
    learning_rate_schedule: LrSchedule = "linear-decay",
    precision: Precision = "auto",
    device: Device = "auto",
    lockstep: LockstepOption = "auto",
    tensorboard: TensorBoardOption = False,
) -> None:
    """Search R(t), train the final networks with it, compare, and write everything to --out."""
    from keeprate.engine import get_method
    from keeprate.schedules import get_space
    from keeprate.searching import search

    config = _config(
        epochs, batch_size, optimizer, learning_rate, learning_rate_schedule, precision, device
    )
    get_method(method)
    get_space(space)
    prepared = _prepare(data, noise, model, seed, inputs, label, true_label, limit, validation)
    _introduce(prepared)
    with _progress() as progress:
        run = search(
            prepared,
            model=model,
            method=method,
            space=space,
            sampler=sampler,
            pruner=pruner,
            trials=trials,
            budget=budget,
            fidelity=fidelity,
            confirm=not no_confirm,
            warm_start=warm_start or True,
            config=config,
            seed=seed,
            out=out,
            baselines=baselines,
            restarts=restarts,
            noise_rate=noise_rate,
            lockstep=_lockstep(lockstep),
            command=_command(),
            progress=progress,
            tensorboard=tensorboard,
        )
    _conclude(run)


@app.command("train")
def train_command(
    data: DataArgument,
    schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            help="auto (by the noise rate, which is estimated, or every sample kept: whichever "
            "validates better), co-teaching, constant, a .json or .csv file, or a run folder.",
        ),
    ],
    out: Out,
    noise: NoiseOption = "none",
    model: Model = "mlp",
    method: MethodOption = "co-teaching",
    epochs: Epochs = 40,
    seed: Seed = 0,
    baselines: BaselinesOption = "auto",
    restarts: Restarts = 1,
    inputs: Inputs = None,
    label: Label = None,
    true_label: TrueLabel = None,
    noise_rate: NoiseRate = None,
    limit: Limit = None,
    validation: Validation = "auto",
    batch_size: BatchSize = 128,
    optimizer: OptimizerOption = "adam",
    learning_rate: LearningRate = 1e-3,
    learning_rate_schedule: LrSchedule = "linear-decay",
    precision: Precision = "auto",
    device: Device = "auto",
    lockstep: LockstepOption = "auto",
    tensorboard: TensorBoardOption = False,
) -> None:
    """Train without a search: by the noise rate, or with a schedule that is there already."""
    from keeprate.engine import get_method
    from keeprate.runs import train

    config = _config(
        epochs, batch_size, optimizer, learning_rate, learning_rate_schedule, precision, device
    )
    get_method(method)
    prepared = _prepare(data, noise, model, seed, inputs, label, true_label, limit, validation)
    _introduce(prepared)
    with _progress() as progress:
        run = train(
            prepared,
            schedule=schedule,
            model=model,
            method=method,
            config=config,
            seed=seed,
            out=out,
            baselines=baselines,
            restarts=restarts,
            noise_rate=noise_rate,
            lockstep=_lockstep(lockstep),
            command=_command(),
            progress=progress,
            tensorboard=tensorboard,
        )
    _conclude(run)


@app.command("predict")
def predict_command(
    run: Annotated[Path, typer.Argument(help="Run folder of a search or training.")],
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="CSV file; predictions.csv in the run folder.")
    ] = None,
    inputs: Inputs = None,
    label: Label = None,
) -> None:
    """Predict the class of each row of DATA with the networks of a run."""
    from keeprate.runs import predict_file

    path = out or run / "predictions.csv"
    n_rows, right = predict_file(run, data, path, inputs=_columns(inputs), label=label)
    typer.echo(f"{n_rows} predictions written to {path}")
    if right is not None:
        typer.echo(f"accuracy against the labels in {data}: {right:.2%}")


@app.command("issues")
def issues_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Run folder, or an .npz file with `labels` [N] and out-of-sample `pred_probs` "
            "[N, C] of any model."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write all of them: .csv, .parquet or .json.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=0, help="How many to print.")] = 20,
) -> None:
    """List the labels that look wrong, the most suspect first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from keeprate.records import load_label_quality
    from keeprate.text import shortened

    quality, class_names = load_label_quality(source)
    n_issues, n = int(quality.is_issue.sum()), len(quality.rows)
    typer.echo(f"{n:,} labels, of which {n_issues:,} ({n_issues / n:.1%}) look wrong")
    columns = quality.table(class_names)
    named = ("name",) if quality.names else ()
    table = Table("row", "given label", "predicted label", "score", *named, title=None)
    for i in range(min(top, n)):
        index, _, score, given, predicted, *name = (column[i] for column in columns.values())
        cells = (str(index), escape(given), escape(predicted), f"{score:.4f}")
        table.add_row(*cells, *(escape(shortened(one, 60)) for one in name))
    if top:
        Console().print(table)
    if out is not None:
        quality.save(out, class_names)
        typer.echo(f"all {n:,}, ranked, written to {out}")


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The page to write; it needs no network.")
    ] = Path("report.html"),
) -> None:
    """Put finished runs on one page: side by side, then each with pictures and suspect labels."""
    from keeprate.report import write_report

    write_report(runs, out)
    typer.echo(f"{len(runs)} run{'s' if len(runs) > 1 else ''} in {out}")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from keeprate import __version__

        typer.echo(f"keeprate {__version__}")
        raise typer.Exit


def _config(
    epochs: int,
    batch_size: int,
    optimizer: str,
    learning_rate: float,
    learning_rate_schedule: str,
    precision: str,
    device: str,
) -> TrainingConfig:
    from keeprate.engine import TrainingConfig

    return TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        learning_rate_schedule=learning_rate_schedule,
        precision=precision,
        device=device,
    )


def _prepare(
    source: str,
    noise: str,
    model: str,
    seed: int,
    inputs: str | None,
    label: str | None,
    true_label: str | None,
    limit: int | None,
    validation: str,
) -> Data:
    from keeprate.data import load, prepare
    from keeprate.engine import get_model
    from keeprate.noise import Noise

    get_model(model)  # a mistyped name should not cost the loading of the data
    parsed = Noise.parse(noise)
    loaded = load(source, inputs=_columns(inputs), label=label, true_label=true_label)
    return prepare(loaded, noise=parsed, seed=seed, limit=limit, validation=validation)


def _columns(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _lockstep(text: str) -> int | None:
    from keeprate.errors import invalid

    if text == "auto":
        return None
    if not text.isdigit():
        raise invalid("lockstep", "be 'auto' or a whole number", text, "leave it out")
    return int(text)


def _command() -> str:
    return shlex.join(["keeprate", *sys.argv[1:]])


def _introduce(data: Data) -> None:
    facts = data.describe()
    noise = facts.get("noise_rate")
    sizes = f"{facts['n_train']:,} training, {facts['n_validation']:,} validation"
    if facts["validation_labels"] == "noisy":
        sizes += " (noisy labels)"
    if facts.get("n_test"):
        sizes += f", {facts['n_test']:,} test"
        sizes += " (noisy labels)" if facts["test_labels"] == "noisy" else ""
    known = "unknown noise rate" if noise is None else f"{noise:.1%} of the training labels wrong"
    typer.echo(f"{facts['name']}: {sizes} samples, {facts['n_classes']} classes, {known}")


@contextmanager
def _progress() -> Iterator[Any]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: float, total: float, best: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, state="")
            unit = "trials" if stage == "search" else "epochs"
            state = f"{done:.0f}/{total:.0f} {unit}"
            if best is not None:
                state += f", best {best:.2%}"
            bars.update(tasks[stage], completed=done, total=total, state=state)

        yield show


def _conclude(run: Run) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from keeprate.report import noisy_test_in_words, write_plots

    table = Table()  # that fits in 80 columns
    table.add_column("training")
    for name in ("test accuracy\nlast epoch", "best\n(epoch)", "label\nprecision", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in run.record["results"]:
        last, best = result["last"], result["best"]
        table.add_row(
            escape(result["label"]),
            _percent(last["test_accuracy"]),
            f"{_percent(best['test_accuracy'])} ({best['epoch']})",
            _percent(last["label_precision"]),
            f"{result['seconds']:.1f}",
        )
    Console().print(table)
    cost = run.record["cost"]
    names = {result["name"] for result in run.record["results"]}
    if run.record["config"]["baselines"] is True and "co-teaching" not in names:
        typer.echo("Co-teaching's own schedule needs the noise rate: give --noise-rate to compare")
    if run.record["trials"]:
        typer.echo(
            f"search: {cost['full_trainings']:.4g} full trainings, {cost['search_seconds']:.1f} s"
        )
    if "first" in run.record:
        first = run.record["first"]
        typer.echo(
            f"R(t) by a noise rate of {first['noise_rate']:.1%}, as {first['epochs']} epochs of "
            f"careful training estimated it in {first['seconds']:.1f} s"
        )
        if run.schedule.name == "constant":
            typer.echo("but every sample kept did better on the validation samples")
    noise = run.record["noise_estimate"]
    typer.echo(
        f"estimated noise rate: {noise['noise_rate']:.1%} +- {noise['noise_rate_std']:.1%} "
        "(standard error of sampling)"
    )
    if warning := noisy_test_in_words(run.record):
        typer.echo(warning)
    if run.folder is not None:
        write_plots(run.record, run.folder)
        typer.echo(
            f"written to {run.folder}: report.html, schedule.csv, label_quality.csv "
            "(most suspect labels first), model.safetensors, record.json"
        )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def main() -> NoReturn:
    """Run the command; what the user can mend is one message and exit code 2."""
    try:
        app()
    except InputError as error:
        typer.echo(f"keeprate: {error}", err=True)
        sys.exit(2)
    sys.exit(0)
