"""A lint rule: no code of ours may execute, unpickle or evaluate text that a model or a dataset wrote.

    python scripts/check_execution.py      exit 0: clean, 1: something found, each with file and line

It reads the syntax tree, not the text: names are followed through `import … as`, assignments, `getattr` with a literal
name and `sys.modules[…]`; a forbidden function is found where it is merely mentioned (`map(eval, lines)`). What runs in
the sandbox's confined child may execute code, that is its purpose. Every other exception stands in `ALLOWED`, with its
reason; an entry that nothing matches any more is an error as well.

Not found, because types are not known: `expression.subs(text, …)` and sympy functions that are given a text under a
name that does not show it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("rewards", "specialists", "rollout", "pipeline", "model", "kernels")
CONFINED = "rewards/sandbox/inside"
"""Runs only in the sandbox, behind Landlock, seccomp and limits."""


@dataclass(frozen=True)
class Found:
    """`name` is what was reached, in full (`sympy.sympify`); `function` the innermost definition around it."""

    file: str
    line: int
    function: str
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name} in {self.function}: {self.why}"


@dataclass(frozen=True)
class Allowed:
    """One exception: `name` may be reached in `function` of `file`, for the reason `why`."""

    file: str
    function: str
    name: str
    why: str


ALLOWED = (
    Allowed(
        "rewards/math/opinion.py",
        "<module>",
        "math_verify",
        "a trusted function of the sandbox: runs in the killable child alone",
    ),
    Allowed(
        "rewards/custom.py",
        "load_function",
        "importlib.import_module",
        "the name of the user's own reward function, from the user's configuration",
    ),
    Allowed(
        "specialists/__init__.py",
        "get_domain",
        "importlib.import_module",
        "one of the names in DOMAINS, checked on the line before",
    ),
    Allowed(
        "pipeline/conductor.py",
        "_Conductor._execute",
        "importlib.import_module",
        "one of the stages that the code itself names",
    ),
)

EXECUTES = "it executes text as Python; run it in the sandbox (rewards.sandbox.Job) instead"
UNPICKLES = "unpickling executes what the file says; store JSON, safetensors or parquet"
SYMPIFIES = "sympy evaluates text as Python; parse it with an own allow-list, or run it in the sandbox's trusted child"
HANGS = "it can hang so that only SIGKILL ends it; call it through Job.trusted_call"
SHELL = "a shell reads the text as commands; give subprocess.run a list of words"
IMPORTS = "an import by a computed name runs whatever module has it; import by name, or allow the place with its reason"
REMOTE = "it runs code that comes with the model or dataset; leave trust_remote_code off"

_BUILTINS = {"eval": EXECUTES, "exec": EXECUTES, "compile": EXECUTES, "__import__": IMPORTS, "__builtins__": EXECUTES}


def _each(names: str, why: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), why)


_MODULES = {
    **_each("pickle _pickle marshal shelve dill cloudpickle joblib", UNPICKLES),
    **_each("builtins runpy code codeop imp pty", EXECUTES),
    **_each("math_verify latex2sympy2 latex2sympy2_extended", HANGS),
}
_FUNCTIONS = {
    **_each("os.system os.popen asyncio.create_subprocess_shell", SHELL),
    **_each("subprocess.getoutput subprocess.getstatusoutput", SHELL),
    **_each("yaml.unsafe_load yaml.unsafe_load_all yaml.full_load yaml.full_load_all", UNPICKLES),
    **_each("yaml.Loader yaml.FullLoader yaml.UnsafeLoader yaml.CLoader", UNPICKLES),
    **_each("pandas.read_pickle torch.jit.load torch.hub.load torch.package.PackageImporter", UNPICKLES),
    **_each("pandas.eval numexpr.evaluate types.FunctionType types.CodeType", EXECUTES),
    **_each("jinja2.Template jinja2.Environment", "a template reaches Python objects; take jinja2.sandbox"),
    **_each("importlib.__import__ importlib.reload pkgutil.resolve_name", IMPORTS),
    **_each("importlib.util.spec_from_file_location importlib.machinery.SourceFileLoader", IMPORTS),
}
# Judged with their arguments where they are called, forbidden where they are only mentioned.
_WHEN_CALLED = {
    *("torch.load", "torch.serialization.load", "yaml.load", "yaml.load_all"),
    *("importlib.import_module", "sympy.S"),
}
_SYMPY_ALWAYS = {"sympify", "_sympify", "parse_expr", "lambdify", "parse_latex", "parse_mathematica", "parse_maxima"}
# These take a name or digits and evaluate nothing.
_SYMPY_TEXT = {"Symbol", "symbols", "Dummy", "Wild", "Function", "Integer", "Rational", "Float"}
_SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"}
_ATTRIBUTES = {"__globals__", "__subclasses__", "__builtins__"}
_STARS = {"sympy", "os", "subprocess", "yaml", "torch", "importlib"}
_TEXT_METHODS = {"format", "strip", "replace", "join", "lower", "upper", "group", "removeprefix", "removesuffix"}


def check_source(source: str, file: str) -> list[Found]:
    """What is forbidden in one file, allowed or not. Raises `SyntaxError` for text that is no Python."""
    looker = _Looker(ast.parse(source, file), file)
    return sorted(dict.fromkeys(looker.found()), key=lambda found: (found.line, found.name))


def check_tree(root: Path, folders: Sequence[str] = FOLDERS) -> tuple[list[Found], list[Allowed]]:
    """What is found and not allowed, and the entries of `ALLOWED` that nothing matched."""
    found: list[Found] = []
    matched: set[Allowed] = set()
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            if file.startswith(CONFINED + "/"):
                continue
            for one in check_source(path.read_text(encoding="utf-8"), file):
                allowed = [a for a in ALLOWED if (a.file, a.function, a.name) == (one.file, one.function, one.name)]
                matched.update(allowed)
                if not allowed:
                    found.append(one)
    return found, [allowed for allowed in ALLOWED if allowed not in matched]


class _Looker:
    def __init__(self, tree: ast.Module, file: str) -> None:
        self.tree, self.file = tree, file
        self.names = _bindings(tree)
        self.texts = _text_names(tree)

    def found(self) -> Iterator[Found]:
        yield from self._visit(self.tree, "<module>")

    def _visit(self, node: ast.AST, function: str) -> Iterator[Found]:
        for name, why in self._judge(node):
            yield Found(self.file, getattr(node, "lineno", 0), function, name, why)
        called = node.func if isinstance(node, ast.Call) else None
        for child in ast.iter_child_nodes(node):
            inner = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = child.name if function == "<module>" else f"{function}.{child.name}"
            reached = resolve(child, self.names)
            if (child is called and reached in _WHEN_CALLED) or (
                reached == "sympy.S" and isinstance(node, ast.Attribute)
            ):
                # Judged with its arguments, as the call; `sympy.S.Half` is a constant.
                for grandchild in ast.iter_child_nodes(child):
                    yield from self._visit(grandchild, inner)
            else:
                yield from self._visit(child, inner)

    def _judge(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _judge_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _judge_module(node.module)
            for alias in node.names:
                yield from self._judge_name(f"{node.module}.{alias.name}", imported=True)
                if alias.name == "*" and node.module.partition(".")[0] in _STARS:
                    yield f"{node.module}.*", "a star import hides which functions come in; name them"
        elif isinstance(node, ast.Call):
            yield from self._judge_call(node)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Load):
            if isinstance(node, ast.Attribute) and node.attr in _ATTRIBUTES:
                yield f".{node.attr}", EXECUTES
            if name := resolve(node, self.names):
                yield from self._judge_name(name, imported=False)

    def _judge_name(self, name: str, imported: bool) -> Iterator[tuple[str, str]]:
        """A function that is mentioned: always forbidden, or (not merely imported) one whose arguments matter."""
        root, last = name.partition(".")[0], name.rpartition(".")[2]
        if name in _BUILTINS:
            yield name, _BUILTINS[name]
        elif root == "builtins" and last in _BUILTINS:
            yield name, _BUILTINS[last]
        elif name in _FUNCTIONS:
            yield name, _FUNCTIONS[name]
        elif root == "os" and (last.startswith(("exec", "spawn", "posix_spawn")) and name.count(".") == 1):
            yield name, "it replaces or starts a process; use subprocess with a list of words"
        elif root == "sympy" and last in _SYMPY_ALWAYS:
            yield name, SYMPIFIES
        elif not imported and name in _WHEN_CALLED:
            yield name, "its arguments decide whether it executes code; call it where it is named"

    def _judge_call(self, call: ast.Call) -> Iterator[tuple[str, str]]:
        name = resolve(call.func, self.names)
        if name in ("torch.load", "torch.serialization.load"):
            if not _is_constant(_keyword(call, "weights_only"), True):
                yield name, "without weights_only=True it unpickles; " + UNPICKLES
        elif name in ("yaml.load", "yaml.load_all"):
            loader = _keyword(call, "Loader") or (call.args[1] if len(call.args) > 1 else None)
            if loader is None or resolve(loader, self.names) not in _SAFE_LOADERS:
                yield name, "without SafeLoader it builds any Python object; use yaml.safe_load"
        elif name == "importlib.import_module":
            first = call.args[0] if call.args else _keyword(call, "name")
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield from _judge_module(first.value)
            else:
                yield name, IMPORTS
        elif name and name.startswith("sympy."):
            last = name.rpartition(".")[2]
            values = [*call.args, *(keyword.value for keyword in call.keywords)]
            if last not in _SYMPY_TEXT and any(self._may_be_text(value) for value in values):
                yield name, "it is given a text; " + SYMPIFIES
            elif name == "sympy.S" and not all(_is_number(value) for value in values):
                yield name, "sympy.S of what is no number; " + SYMPIFIES
        elif name and name.startswith("subprocess."):
            shell = _keyword(call, "shell")
            if shell is not None and not _is_constant(shell, False):
                yield f"{name}(shell=…)", SHELL
            if any(keyword.arg is None for keyword in call.keywords):
                yield f"{name}(**…)", "keywords that can not be read here may hold shell=True; write them out"
        if isinstance(call.func, ast.Attribute) and call.func.attr == "eval" and (call.args or call.keywords):
            yield ".eval(…)", EXECUTES
        if (executed := resolve(call, self.names)) is not None:
            yield from self._judge_name(executed, imported=False)
        for keyword, why in (("allow_pickle", UNPICKLES), ("trust_remote_code", REMOTE)):
            value = _keyword(call, keyword)
            if value is not None and not _is_constant(value, False):
                yield f"{keyword}=…", why

    def _may_be_text(self, node: ast.AST) -> bool:
        """Whether an expression is plainly a str: a literal, an f-string, str(…), a method of texts, `+` or `%` of
        them, or a name that is annotated or assigned as one."""
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str)
        if isinstance(node, ast.JoinedStr):
            return True
        if isinstance(node, ast.Name):
            return node.id in self.texts
        if isinstance(node, ast.BinOp):
            return self._may_be_text(node.left) or self._may_be_text(node.right)
        if isinstance(node, ast.Subscript):
            return self._may_be_text(node.value)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                return node.func.attr in _TEXT_METHODS
            return isinstance(node.func, ast.Name) and node.func.id in ("str", "repr", "input")
        return isinstance(node, ast.Starred) and self._may_be_text(node.value)


def resolve(node: ast.AST, names: dict[str, str]) -> str | None:
    """The full name that an expression reaches (`pickle.loads`), or None: names, attributes, `getattr(x, "literal")`,
    `sys.modules["m"]`, `x.__dict__["f"]`, `vars(x)["f"]` and `importlib.import_module("m")`."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = resolve(node.value, names)
        return inner and f"{inner}.{node.attr}"
    if isinstance(node, ast.Subscript) and (key := _text(node.slice)) is not None:
        inner = resolve(node.value, names)
        if inner == "sys.modules":
            return key
        if inner == "__builtins__":
            return f"builtins.{key}"
        if inner is not None and inner.endswith(".__dict__"):
            return f"{inner.removesuffix('.__dict__')}.{key}"
        if isinstance(node.value, ast.Call) and resolve(node.value.func, names) == "vars" and node.value.args:
            inner = resolve(node.value.args[0], names)
            return inner and f"{inner}.{key}"
        if isinstance(node.value, ast.Call) and resolve(node.value.func, names) == "globals":
            return names.get(key, key)
    if isinstance(node, ast.Call) and node.args:
        function = resolve(node.func, names)
        if function == "getattr" and len(node.args) > 1 and (key := _text(node.args[1])) is not None:
            inner = resolve(node.args[0], names)
            return inner and f"{inner}.{key}"
        if function in ("importlib.import_module", "__import__"):
            return _text(node.args[0])
    return None


def _judge_module(name: str) -> Iterator[tuple[str, str]]:
    root = name.partition(".")[0]
    if root in _MODULES:
        yield root, _MODULES[root]


def _bindings(tree: ast.Module) -> dict[str, str]:
    """Local name -> full name, of imports anywhere in the file and of assignments that only rename. Scopes are not
    told apart: a name that means something forbidden anywhere counts as that everywhere."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    renamed = [
        (target.id, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    modules = {full.partition(".")[0] for full in names.values()} | set(_MODULES)
    known = -1
    while known != len(names):
        known = len(names)
        for name, value in renamed:
            full = resolve(value, names)
            if name not in names and full and full.partition(".")[0] in modules:
                names[name] = full
    return names


def _text_names(tree: ast.Module) -> set[str]:
    """Names that are annotated `str`, or assigned a text, anywhere in the file."""
    texts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and isinstance(node.annotation, ast.Name):
            if node.annotation.id == "str":
                target = node.arg if isinstance(node, ast.arg) else node.target
                texts.add(target if isinstance(target, str) else getattr(target, "id", ""))
        elif isinstance(node, ast.Assign) and (isinstance(node.value, ast.JoinedStr) or _text(node.value) is not None):
            texts.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return texts


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_number(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp):
        return _is_number(node.operand)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def main() -> int:
    found, stale = check_tree(ROOT)
    for one in found:
        print(one)
    for entry in stale:
        print(f"check_execution.py: ALLOWED names {entry.name} in {entry.function} of {entry.file}; nothing is there")
    return 1 if found or stale else 0


if __name__ == "__main__":
    sys.exit(main())
