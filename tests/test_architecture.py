"""The house's rules that import contracts do not tell, read off the source of every module."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "speakup"

FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name, and where."""

    target: str
    line: int
    typing_only: bool


@dataclass(frozen=True)
class Module:
    """One source file of the package, parsed."""

    name: str  # dotted, below the package: "audio", "networks.layers"
    path: Path
    tree: ast.Module

    @property
    def part(self) -> str:
        return self.name.split(".")[0]

    @property
    def imports(self) -> list[Import]:
        return list(_imports(self.tree, self.path, typing_only=False))

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def _imports(node: ast.AST, path: Path, *, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        below = typing_only
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            below = True
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, below)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                folders = path.relative_to(ROOT).with_suffix("").parts[: -child.level]
                base = ".".join([*folders, *([base] if base else [])])
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, below)
        else:
            yield from _imports(child, path, typing_only=below)


def _load() -> dict[str, Module]:
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        name = ".".join(parts)
        if name:  # the package's own __init__ loads lazily; it is judged by what it imports
            modules[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return modules


MODULES = _load()


def _ours(target: str) -> str | None:
    """Give the module of ours that an import means, below the package; None for foreign ones."""
    head, _, rest = target.partition(".")
    if head != "speakup" or rest in ("", "__version__"):
        return None
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest or None


def _foreign(target: str) -> str:
    return target.partition(".")[0]


def test_imports_keep_the_contracts() -> None:
    """The floors of the house, and what each room may know, stand in pyproject.toml."""
    pytest.importorskip("importlinter")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_picture_of_the_house_is_drawn_from_its_imports() -> None:
    pytest.importorskip("grimp")
    command = [sys.executable, str(ROOT / "tools" / "house.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert done.stdout in page, "run tools/house.py --write"


def test_modules_import_names_from_their_homes() -> None:
    wrong = [
        f"{module.at(found.line)} imports {found.target}"
        for module in MODULES.values()
        for found in module.imports
        if _foreign(found.target) == "speakup"
        and found.target != "speakup.__version__"
        and _ours(found.target) is None
    ]
    assert wrong == [], "only __version__ lives in the package itself"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES.values():
        targets = {_ours(found.target) for found in module.imports if not found.typing_only}
        graph[module.name] = {target for target in targets if target and target != module.name}
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


def test_only_the_command_line_prints_and_exits() -> None:
    wrong = []
    for module in MODULES.values():
        # The child ends as its limits say, and nothing but the whole process can.
        if module.part in ("cli", "__main__") or module.name == "media.child":
            continue
        wrong += [
            f"{module.at(node.lineno)} uses {ast.unparse(node)}"
            for node in ast.walk(module.tree)
            if (isinstance(node, ast.Name) and node.id in ("print", "exit", "quit"))
            or (
                isinstance(node, ast.Attribute)
                and ast.unparse(node) in ("sys.stdout", "sys.stderr", "sys.exit", "os._exit")
            )
        ]
    assert wrong == []


def test_the_library_speaks_of_settings_and_the_command_line_of_options() -> None:
    """Who calls a function has no `--overwrite`; commands that are named as such have options."""
    command = re.compile(r"pip install|^ ?--[\w-]+$|speakup (models|train|export|doctor)\b")
    wrong = []
    for module in MODULES.values():
        if module.part == "cli":
            continue
        docs = {
            id(node.body[0].value)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        wrong += [
            f"{module.at(node.lineno)} says {node.value!r}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docs
            and re.search(r"(^|[\s(`'])--[a-z]", node.value)
            and not command.search(node.value)
        ]
    assert wrong == []


def test_nothing_sets_threads_or_seeds_at_import() -> None:
    def at_import(node: ast.AST) -> Iterator[ast.Call]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Call):
                yield child
            yield from at_import(child)

    wrong = [
        f"{module.at(call.lineno)} calls {ast.unparse(call.func)}"
        for module in MODULES.values()
        for call in at_import(module.tree)
        if re.search(r"(\.|^)(set_\w+|manual_seed|seed|basicConfig)$", ast.unparse(call.func))
    ]
    assert wrong == []


def test_no_foreign_object_is_unpickled() -> None:
    wrong = []
    for module in MODULES.values():
        wrong += [
            f"{module.at(found.line)} imports {found.target}"
            for found in module.imports
            if _foreign(found.target) in ("pickle", "joblib", "dill", "shelve", "marshal")
        ]
        wrong += [
            f"{module.at(node.lineno)} calls torch.load without weights_only=True"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) == "torch.load"
            and "weights_only=True" not in ast.unparse(node)
        ]
    assert wrong == []


def test_functions_stay_short() -> None:
    long = [
        f"{module.at(node.lineno)} {node.name} has {length} lines"
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := _lines_of_code(node)) > FUNCTION_LINES
    ]
    assert long == []


def _lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines below its signature and docstring, which are there to be read."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize(
    "statement",
    [
        "import speakup",
        "import speakup; speakup.Config(); speakup.SpeakupError; dir(speakup)",
        "from speakup.cli import main; main()",
    ],
)
def test_light_things_import_no_torch(statement: str) -> None:
    code = f"""
import sys
sys.argv = ["speakup", "--help"]
try:
    {statement}
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "torchaudio", "scipy", "numpy", "huggingface_hub"}} & set(sys.modules)
sys.exit(f"imported {{sorted(heavy)}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_all_there() -> None:
    import speakup

    assert set(speakup.__all__) <= set(dir(speakup))
    for name in speakup.__all__:
        assert getattr(speakup, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'enhence'"):
        _ = speakup.enhence


def _project_texts() -> Iterator[tuple[Path, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files are the project's")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights, sound, pictures


def test_every_page_named_exists() -> None:
    texts = list(_project_texts())
    pages = {path.name for path, _ in texts if path.suffix == ".md"}
    named = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*([\w-]+\.md)\b")
    wrong = [
        f"{path.relative_to(ROOT)}: {page}"
        for path, text in texts
        for page in named.findall(text)
        if page not in pages
    ]
    assert wrong == []
