"""What can be typed: the options of each command, checked before PyTorch is imported.

An option is an alias (`Out`) or a field of a group (`SearchOptions`, `RunOptions`). The commands in
`keeprate.cli.commands` name them in their signatures.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from keeprate.engine import TrainingConfig, check_method_name, check_model_name
from keeprate.errors import InputError, Words, first_line, invalid
from keeprate.reading import is_hub_name, is_table

if TYPE_CHECKING:
    from keeprate.noise import Noise
    from keeprate.searching import SearchConfig

RESEARCH = "Research"  # the help panel of the options that --help leaves out


def _everyday(name: str, words: str, *, short: str = "", **settings: Any) -> Any:
    names = [name, short] if short else [name]
    return typer.Option(*names, help=words, metavar="", **settings)


def _research(name: str, words: str, **settings: Any) -> Any:
    return _everyday(name, words, rich_help_panel=RESEARCH, hidden=True, **settings)


def _show_help(context: typer.Context, is_asked: bool) -> None:
    """Print the help of a command."""
    if is_asked:
        typer.echo(context.get_help())
        raise typer.Exit


def _show_all_help(context: typer.Context, is_asked: bool) -> None:
    """Print the help with the research options."""
    if is_asked:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]  # arguments are never hidden
        _show_help(context, is_asked)


Help: TypeAlias = Annotated[
    bool, _everyday("--help", "Show this page.", is_eager=True, callback=_show_help)
]
AllHelp: TypeAlias = Annotated[
    bool,
    _everyday(
        "--help-all", "Show the research options, too.", is_eager=True, callback=_show_all_help
    ),
]
Version: TypeAlias = Annotated[bool, _everyday("--version", "Print the version.")]
Source: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="digits, a file, a folder, or a Hugging Face data set.",
    ),
]
Inputs: TypeAlias = Annotated[
    str | None, _everyday("--inputs", "Input columns, with commas between them.")
]
Sources: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        show_default=False,
        help="Tables, images, a folder, or a Hugging Face data set; no labels needed.",
    ),
]
Model: TypeAlias = Annotated[
    str | None, _everyday("--model", "package.module:factory, if the run had a model of yours.")
]
AllProbabilities: TypeAlias = Annotated[
    bool, _everyday("--probabilities", "Write the probability of every class, too.")
]
Label: TypeAlias = Annotated[str | None, _everyday("--label", "Label column.")]
Out: TypeAlias = Annotated[str, _everyday("--out", "Run folder; the same command continues it.")]
ScheduleOption: TypeAlias = Annotated[
    str, _everyday("--schedule", "auto, co-teaching, constant, a file, or a run folder.")
]
RunFolder: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", show_default=False, help="Run folder.")
]
PairsOption: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="PAIRS",
        show_default=False,
        help="List of pairs (LFW, CALFW, CPLFW, AgeDB-30, CFP, CSV), or a .bin file.",
    ),
]
PicturesOption: TypeAlias = Annotated[
    str | None,
    _everyday("--images", "Folder or Parquet file of the pictures; left out, beside the list."),
]
VerificationFile: TypeAlias = Annotated[
    Path | None, _everyday("--out", "JSON file; if left out, verification-NAME.json in RUN.")
]
OnnxFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE", show_default=False, help="ONNX file to write.")
]
RunFolders: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="RUN...", show_default=False, help="Run folders.")
]
JudgedLabels: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        show_default=False,
        help="Run folder, or .npz file of labels [N] and pred_probs [N, C].",
    ),
]
PredictionsFile: TypeAlias = Annotated[
    Path | None, _everyday("--out", "CSV file; if left out, predictions.csv in RUN.")
]
DecisionsFile: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="DECISIONS",
        show_default=False,
        help="CSV file of decisions on labels, as the report of RUN gives it.",
    ),
]
FixedData: TypeAlias = Annotated[
    Path,
    _everyday("--out", "New folder; for a single file also a new file of the same suffix."),
]
MovedData: TypeAlias = Annotated[
    Path | None, _everyday("--data", "The data of RUN, if they lie elsewhere by now.")
]
Link: TypeAlias = Annotated[
    bool, _everyday("--link", "Give files a second name (a hard link) in place of a copy.")
]
IssuesFile: TypeAlias = Annotated[
    Path | None, _everyday("--out", "Write the labels to a .csv, .parquet or .json file.")
]
ReportFile: TypeAlias = Annotated[
    Path, typer.Option("--out", "-o", metavar="", help="The page; it needs no network.")
]
Baselines: TypeAlias = Annotated[
    str, _research("--baselines", "To compare with: auto, none, all or names.")
]
Top: TypeAlias = Annotated[int, _everyday("--top", "How many labels to print.", min=0)]
Precision: TypeAlias = Annotated[
    float | None,
    _everyday("--precision", "List so many that this share of them is wrong: 0.9, say."),
]
Rows: TypeAlias = Annotated[int | None, _everyday("--rows", "List so many labels.", min=1)]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options that only `keeprate search` has."""

    budget: Annotated[
        str, _everyday("--budget", "Cost of the search: 6 (trainings), 30m or 40trials.")
    ] = "6"
    space: Annotated[str, _research("--space", "basis, co-teaching, power-decay or full.")] = (
        "basis"
    )
    sampler: Annotated[
        str, _research("--sampler", "Or natural-gradient, random, tpe, paper:STEP.")
    ] = "gaussian-process"
    pruner: Annotated[str, _research("--pruner", "Stops bad trials: halving, median ...")] = "none"
    fidelity: Annotated[
        float, _research("--fidelity", "Share of the epochs that trials train for.")
    ] = 1.0
    warm_start: Annotated[
        list[str] | None,
        _research("--warm-start", "A run or file to try first; repeatable."),
    ] = None
    storage: Annotated[
        str | None, _research("--storage", "Database of the study: postgresql://user@host/name.")
    ] = None

    add_trials: Annotated[
        int | None, _everyday("--add-trials", "Go on with the finished search in --out: 10, say.")
    ] = None
    plan: Annotated[bool, _everyday("--plan", "Only say what the search will train and cost.")] = (
        False
    )
    baselines: Baselines = "auto"

    def __post_init__(self) -> None:
        from keeprate.searching import Budget, Database

        Budget.parse(self.budget)  # raises, like the next one
        if self.storage is not None:
            Database.parse(self.storage)

    def config(self) -> SearchConfig:
        """The checked options of the search; PyTorch is not needed."""
        from keeprate.searching import SearchConfig, check_budget

        config = SearchConfig(
            space=self.space,
            sampler=self.sampler,
            pruner=self.pruner,
            fidelity=self.fidelity,
            warm_start=self.warm_start or True,
        )
        check_budget(self.budget, config)
        return config


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options that `keeprate search` and `keeprate train` share."""

    data: Source
    out: Out
    method: Annotated[
        str, _everyday("--method", "auto, co-teaching, jocor ...: docs/methods.md.")
    ] = "auto"
    model: Annotated[
        str, _everyday("--model", "mlp, model1 to model3, face-small ..., or module:factory.")
    ] = "auto"
    epochs: Annotated[int, _everyday("--epochs", "Epochs of a full training.")] = (
        TrainingConfig.epochs
    )
    batch_size: Annotated[int, _everyday("--batch-size", "Samples in a batch.")] = (
        TrainingConfig.batch_size
    )
    noise: Annotated[
        str, _everyday("--noise", "Noise to add: pairflip:0.45, symmetric:0.5 ...")
    ] = "none"
    validation: Annotated[str, _everyday("--validation", "auto, or noisy: use no clean label.")] = (
        "auto"
    )
    after: Annotated[
        str | None, _everyday("--after", "A run before: its reviewed labels are clean.")
    ] = None
    label: Label = None
    inputs: Inputs = None
    columns: Annotated[
        str | None, _everyday("--columns", "What columns hold: age=number,note=text,id=ignore.")
    ] = None
    seed: Annotated[int, _everyday("--seed", "Of noise, split, weights and search.")] = 0
    metric: Annotated[
        str, _everyday("--metric", "accuracy, average_precision ...: a scorer of scikit-learn.")
    ] = "accuracy"
    positive: Annotated[
        str | None, _research("--positive", "Of two classes the one --metric looks for.")
    ] = None
    quiet: Annotated[bool, _everyday("--quiet", "Print the table and cautions only.")] = False
    help_all: AllHelp = False
    restarts: Annotated[
        int | None,
        _research("--restarts", "Final trainings; 3 after a search, else 1."),
    ] = None
    noise_rate: Annotated[
        float | None,
        _research("--noise-rate", "Your estimate, for co-teaching and auto."),
    ] = None
    true_label: Annotated[
        str | None,
        _research("--true-label", "Column of true labels; not for training."),
    ] = None
    image_size: Annotated[
        str | None, _research("--image-size", "Resize images: 32, or height x width: 32x48.")
    ] = None
    text_model: Annotated[
        str | None, _research("--text-model", "sentence-transformers model for texts.")
    ] = None
    pairs: Annotated[
        str | None,
        _research("--pairs", "Faces: pairs of other people, which choose R(t); see verify."),
    ] = None
    pair_images: Annotated[
        str | None, _research("--pair-images", "Pictures of the pairs: a folder or Parquet.")
    ] = None
    normalise: Annotated[
        str, _research("--normalise", "auto, centred (pixels in -1..1), or none: as they are.")
    ] = "auto"
    votes: Annotated[
        str | None, _research("--votes", "Columns of labels, one for each annotator.")
    ] = None
    limit: Annotated[int | None, _research("--limit", "Use so many training samples.")] = None
    optimizer: Annotated[str, _research("--optimizer", "adam, adamw, sgd or rmsprop.")] = (
        TrainingConfig.optimizer
    )
    learning_rate: Annotated[float, _research("--learning-rate", "At the start.", short="--lr")] = (
        TrainingConfig.learning_rate
    )
    learning_rate_schedule: Annotated[
        str, _research("--learning-rate-schedule", "linear-decay, constant, cosine or steps.")
    ] = TrainingConfig.learning_rate_schedule
    warmup_epochs: Annotated[
        int, _research("--warmup-epochs", "Epochs in which the learning rate grows.")
    ] = TrainingConfig.warmup_epochs
    weight_decay: Annotated[float, _research("--weight-decay", "As in PyTorch.")] = (
        TrainingConfig.weight_decay
    )
    max_grad_norm: Annotated[
        float, _research("--max-grad-norm", "Clips the gradient of each network; 0: never.")
    ] = TrainingConfig.max_grad_norm
    class_weight: Annotated[
        str | None,
        _research("--class-weight", "balanced: rare classes count as much as others."),
    ] = None
    augment: Annotated[
        str, _research("--augment", "Vary training samples: flip, crop:4, noise:0.1 ...")
    ] = TrainingConfig.augment
    margin: Annotated[
        float, _research("--margin", "Angular margin of face-small and face-resnet50: 0.3, say.")
    ] = TrainingConfig.margin
    keep: Annotated[str, _research("--keep", "Weights of the last or of the best epoch.")] = (
        TrainingConfig.keep
    )
    precision: Annotated[str, _research("--precision", "auto, float32 or bfloat16.")] = (
        TrainingConfig.precision
    )
    device: Annotated[str, _research("--device", "auto, cpu, cuda, cuda:1 ...")] = (
        TrainingConfig.device
    )
    lockstep: Annotated[
        str,
        _research("--lockstep", "Candidates that train together; a number."),
    ] = "auto"
    tensorboard: Annotated[
        bool, _research("--tensorboard", "Also write curves for TensorBoard.")
    ] = False
    cluster: Annotated[
        str | None, _research("--cluster", "Train on a Ray cluster: auto, or host:port.")
    ] = None

    def __post_init__(self) -> None:
        check_source(self.data)
        check_out(self.out)
        for name, least in (("restarts", 1), ("limit", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise invalid(name, f"be at least {least}", value, "leave it out for the default")
        if self.noise_rate is not None and not 0 <= self.noise_rate < 1:
            raise invalid("noise_rate", "lie in [0, 1)", self.noise_rate, "try 0.45")
        if self.validation not in ("auto", "noisy"):
            raise invalid("validation", "be auto or noisy", self.validation, "choose one of these")
        if self.pair_images is not None and self.pairs is None:
            remedy = "give --pairs, too, or leave it out"
            raise invalid("pair_images", "come with --pairs", self.pair_images, remedy)
        check_places(pairs=self.pairs, pair_images=self.pair_images)
        self._check_metric()
        if self.after is not None:
            check_run(self.after)
        check_method_name(self.method)
        check_model_name(self.model)
        self.candidates_in_lockstep()  # raises, like the next two
        self.training_config()
        self.parsed_noise()
        self.kinds()
        self.parsed_image_size()

    def _check_metric(self) -> None:
        """Refuse a metric that is none, or does not go with other options."""
        if self.metric == "accuracy":
            if self.positive is not None:
                remedy = "give --metric average_precision, say, or leave it out"
                raise invalid("positive", "come with --metric", self.positive, remedy)
            return
        if self.pairs is not None:
            raise invalid("metric", "be left out with --pairs", self.metric, "give one of the two")
        from keeprate.engine import check_scorer_name

        check_scorer_name(self.metric)

    def kinds(self) -> dict[str, str] | None:
        """What some columns hold."""
        return kinds_typed(self.columns)

    def parsed_image_size(self) -> tuple[int, int] | None:
        """Height and width of images."""
        if self.image_size is None:
            return None
        sides = self.image_size.lower().split("x")
        if len(sides) > 2 or not all(side.strip().isdecimal() and int(side) for side in sides):
            raise invalid("image_size", "be 32 or 32x48, say", self.image_size, "write two numbers")
        return int(sides[0]), int(sides[-1])

    def training_config(self) -> TrainingConfig:
        """How one network is trained."""
        return TrainingConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            learning_rate_schedule=self.learning_rate_schedule,
            warmup_epochs=self.warmup_epochs,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            precision=self.precision,
            class_weight=self.class_weight,
            augment=self.augment,
            margin=self.margin,
            keep=self.keep,
            device=self.device,
        )

    def parsed_noise(self) -> Noise:
        """The noise to add."""
        from keeprate.noise import Noise

        return Noise.parse(self.noise)

    def candidates_in_lockstep(self) -> int | None:
        """How many candidates train together at most; None: what fits in memory."""
        if self.lockstep == "auto":
            return None
        if not self.lockstep.isdecimal() or int(self.lockstep) < 1:
            requirement = "be 'auto' or a whole number of at least 1"
            raise invalid("lockstep", requirement, self.lockstep, "leave it out")
        return int(self.lockstep)


def names_typed(text: str | None) -> list[str] | None:
    """Column names that were typed with commas between them; quotes keep a comma in a name.

    >>> names_typed('age,"weight, kg"')
    ['age', 'weight, kg']
    """
    if text is None:
        return None
    try:
        return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error as error:
        remedy = "write them with commas between them"
        raise invalid("names", "be names of columns", Words(first_line(error)), remedy) from error


def kinds_typed(text: str | None) -> dict[str, str] | None:
    """Kinds of columns that were typed as `age=number,note=text`.

    Raises
    ------
    InputError
        If a part is no pair.

    Examples
    --------
    >>> kinds_typed("age=number,id=ignore")
    {'age': 'number', 'id': 'ignore'}
    """
    pairs = [name.rpartition("=") for name in names_typed(text) or []]
    for name, _, kind in pairs:
        if not name or not kind:
            remedy = "kinds are number, category, date, text and ignore"
            raise invalid("columns", "be pairs such as age=number,note=text", text, remedy)
    return {name.strip(): kind.strip() for name, _, kind in pairs} or None


def check_source(source: str) -> None:
    """Refuse a data set that is not there, before PyTorch is imported to load it.

    Raises
    ------
    InputError
        If the name is no path, no built-in data set, and cannot be one of the Hugging Face Hub.
    """
    path = Path(source)
    if source == "digits" or (source and path.exists()):
        return
    is_file_name = is_table(path) or path.suffix.lower() == ".npz"
    if is_file_name or not is_hub_name(source):
        requirement = "be digits, a file, a folder, or owner/name on the Hugging Face Hub"
        remedy = "it is neither a path nor a known name: check the spelling"
        raise invalid("DATA", requirement, source, remedy)


def check_places(**places: str | None) -> None:
    """Refuse paths that are not there, by the names of their options.

    Raises
    ------
    InputError
        If one is neither a file nor a folder.
    """
    for name, given in places.items():
        if given is not None and not Path(given).exists():
            raise invalid(name, "be a file or a folder that exists", given, "check the path")


def check_out(folder: str) -> None:
    """Refuse a run folder that cannot be one.

    Raises
    ------
    InputError
        If the name is empty, or a file stands in the way.
    """
    if not folder.strip():
        raise invalid("out", "name a folder", folder, "write --out runs/first")
    path = Path(folder)
    for place in (path, *path.parents):
        if place.is_file():
            remedy = f"it could not be written, as {place} is a file: choose another name"
            raise invalid("out", "be a folder", folder, remedy)


def check_run(folder: str) -> None:
    """Refuse a folder that holds no run.

    Raises
    ------
    InputError
        If there is no record in the folder.
    """
    if not (Path(folder) / "record.json").is_file():
        remedy = "check the path: there is no record.json in it"
        raise invalid("RUN", "be the folder of a run", folder, remedy)


def check_judged_labels(source: str) -> None:
    """Refuse what is neither a run nor an .npz file.

    Raises
    ------
    InputError
        If it is neither, or is not there.
    """
    path = Path(source)
    if path.suffix == ".npz":
        if not path.exists():
            raise InputError(f"{path} could not be read (No such file); check the path.")
    elif path.is_dir():
        check_run(source)
    else:
        raise invalid("RUN", "be a run folder or an .npz file", source, "check the path")
