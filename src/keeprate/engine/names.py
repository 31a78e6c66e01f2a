"""The names of built-in methods and models, known without PyTorch: a typo is refused at once."""

from __future__ import annotations

from keeprate.errors import invalid

METHOD_NAMES = (
    "standard",
    "decoupling",
    "f-correction",
    "mentornet",
    "co-teaching",
    "co-teaching-plus",
    "co-mining",
    "jocor",
)
RANK_THE_BATCH = ("mentornet", "co-teaching", "co-mining", "jocor")
"""Methods whose rules rank all samples of a batch: they can select by class."""

PER_CLASS = "-per-class"  # after a method's name: the same share of every class
AUTO = "auto"  # the method that is chosen for a run
MODEL_NAMES = (
    "auto",
    "mlp",
    "perceptron",
    "model1",
    "model2",
    "model3",
    "resnet18-small",
    "resnet50",
    "face-small",
    "face-resnet50",
)


def check_method_name(name: str) -> None:
    """Refuse a name that is no built-in method's and not `package.module:method`.

    Raises
    ------
    InputError
        If it is neither.
    """
    base = name.removesuffix(PER_CLASS)
    if name in (AUTO, *METHOD_NAMES) or (base != name and base in RANK_THE_BATCH) or ":" in name:
        return
    names = ", ".join((AUTO, *METHOD_NAMES))
    known = f"{names}, some of these with {PER_CLASS}, or package.module:method"
    raise invalid("method", f"be one of {known}", name, "choose one of these")


def check_model_name(name: str) -> None:
    """Refuse a name that is no built-in model's and not `package.module:factory`.

    Raises
    ------
    InputError
        If it is neither.
    """
    if name not in MODEL_NAMES and ":" not in name:
        known = f"{', '.join(MODEL_NAMES)} or package.module:factory"
        raise invalid("model", f"be one of {known}", name, "choose one of these")
