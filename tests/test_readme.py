"""The README's snippets run in order, in one folder: as they stand, but for shorter trainings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
INSTALLS = ("pip install", "make ")  # not run here: test_examples.py and .ci/run make the targets
# test_examples.py runs the first snippets with all of it.
BUDGET = re.compile(r"(budget[= ])6\b")
CLASSIFIER = re.compile(r"(?<== NoisyLabelClassifier\()")
COMMAND = "from keeprate.cli.commands import main\nmain()\n"


def test_the_snippets_run_in_order_in_one_folder(python, tmp_path):
    command = tmp_path / "keeprate"
    command.write_text(COMMAND)
    said = {}
    assert sum(len(BUDGET.findall(text)) for _, text in BLOCKS) == 2
    assert sum(len(CLASSIFIER.findall(text)) for _, text in BLOCKS) == 1
    for number, (language, whole) in enumerate(BLOCKS):
        text = CLASSIFIER.sub("epochs=10, ", BUDGET.sub(r"\g<1>2", whole))
        if language == "python":
            script = tmp_path / f"snippet{number}.py"
            script.write_text(text)
            done = python(script, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            said.setdefault(language, []).append(done.stdout)
            continue
        for line in filter(None, text.splitlines()):
            if line.startswith(INSTALLS):
                continue
            program, *arguments = shlex.split(line, comments=True)
            assert program == "keeprate", f"{line}: a command that is not tried"
            done = python(command, *arguments, cwd=tmp_path)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            said[arguments[0]] = done.stdout
    assert {"python", "search", "train", "issues", "predict", "report"} <= said.keys()
    accuracy, noise_rate = (float(number) for number in re.findall(r"([\d.]+)%", said["python"][0]))
    assert accuracy > 80 and 20 < noise_rate < 40  # 30 % of the labels are wrong
    assert "Run('search', data='digits'" in said["python"][1]
    assert 0.5 < float(said["python"][1].splitlines()[-1]) < 1  # test accuracy
    runs = tmp_path / "runs"
    listed = re.findall(r"^\| `([\w.]+)` \|", README, flags=re.MULTILINE)
    assert len(listed) == 6
    for name in ("searched", "python"):
        assert {path.name for path in (runs / name).iterdir()} >= set(listed)
    assert (runs / "fix.csv").exists() and (runs / "report.html").exists()


def test_the_readme_is_short_and_its_files_are_there():
    assert len(README) <= 6000
    root = Path(__file__).parents[1]
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links and all((root / link).exists() for link in links), links
