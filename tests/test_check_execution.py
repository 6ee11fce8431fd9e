"""The lint rule against execution of text: what it must catch, what it must let pass, and that the tree is clean."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import check_execution
from scripts.check_execution import ALLOWED, check_source, check_tree

ROOT = Path(__file__).parents[1]

CAUGHT = {
    "eval": "def grade(answer):\n    return eval(answer)",
    "eval handed on": "values = list(map(eval, lines))",
    "exec": "exec(source)",
    "compile to exec": "code = compile(text, 'a', 'exec')",
    "another name for eval": "judge = eval\njudge(text)",
    "builtins by attribute": "import builtins\nbuiltins.eval(text)",
    "builtins by getattr": "import builtins as b\ngetattr(b, 'eval')(text)",
    "builtins by a computed name": "import builtins\ngetattr(builtins, name)(text)",
    "builtins from import": "from builtins import eval as check\ncheck(text)",
    "builtins by the hidden name": "__builtins__['eval'](text)",
    "builtins of another module": "import json\njson.__builtins__['eval'](text)",
    "builtins by sys.modules": "import sys\nsys.modules['builtins'].eval(text)",
    "builtins by globals": "globals()['__builtins__'].eval(text)",
    "builtins by import_module": "import importlib\nimportlib.import_module('builtins').eval(text)",
    "builtins by vars": "import sys\nvars(sys.modules['builtins'])['exec'](text)",
    "walk over classes": "().__class__.__base__.__subclasses__()",
    "pickle": "import pickle\npickle.loads(row['tests'])",
    "pickle renamed": "import pickle as p\np.loads(row)",
    "pickle inside a function": "def read(row):\n    from pickle import loads as read_row\n    return read_row(row)",
    "pickle's other module": "from _pickle import Unpickler",
    "marshal": "import marshal",
    "shelve": "import shelve",
    "dill": "import dill",
    "cloudpickle": "from ray import cloudpickle\nimport cloudpickle",
    "joblib": "import joblib",
    "sympify": "import sympy\nsympy.sympify(answer)",
    "sympify renamed": "from sympy import sympify as s\ns(answer)",
    "sympify by its own module": "from sympy.core.sympify import sympify",
    "sympify by assignment": "import sympy\nread = sympy.sympify\nread(answer)",
    "sympy renamed by assignment": "import sympy\nlibrary = sympy\nlibrary.sympify(answer)",
    "sympify by getattr": "import sympy\ngetattr(sympy, 'sympify')(answer)",
    "parse_expr": "from sympy.parsing.sympy_parser import parse_expr",
    "parse_latex": "from sympy.parsing.latex import parse_latex",
    "S of a name": "from sympy import S\nS(answer)",
    "S of a text": "import sympy as sp\nsp.S('1/2')",
    "S handed on": "from sympy import S\nlist(map(S, answers))",
    "N of a text": "from sympy import N\nN('2*pi')",
    "N of an f-string": "import sympy\nsympy.N(f'({answer})')",
    "N of an argument that is a text": "import sympy\ndef value(answer: str):\n    return sympy.N(answer)",
    "simplify of a difference of texts": "from sympy import simplify\nsimplify('(' + a + ')-(' + b + ')')",
    "simplify of a stripped text": "from sympy import simplify\nsimplify(answer.strip())",
    "simplify of a formatted text": "from sympy import simplify\nsimplify('%s' % answer)",
    "Eq of str": "import sympy\nsympy.Eq(str(a), 1)",
    "all of sympy": "from sympy import *",
    "math_verify": "from math_verify import parse",
    "latex2sympy": "from latex2sympy2_extended import latex2sympy",
    "yaml.load": "import yaml\nyaml.load(text)",
    "yaml.load with a loader that builds objects": "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    "yaml.load renamed": "from yaml import load, FullLoader\nload(text, FullLoader)",
    "yaml.load handed on": "import yaml\nlist(map(yaml.load, texts))",
    "yaml.unsafe_load": "import yaml\nyaml.unsafe_load(text)",
    "torch.load": "import torch\ntorch.load(path)",
    "torch.load told to unpickle": "import torch\ntorch.load(path, weights_only=False)",
    "torch.load by a variable": "import torch\ntorch.load(path, weights_only=safe)",
    "torch.load with hidden keywords": "import torch\ntorch.load(path, **keywords)",
    "torch.load renamed": "from torch import load\nload(path)",
    "torch.load handed on": "import functools, torch\nread = functools.partial(torch.load, weights_only=False)",
    "numpy objects": "import numpy as np\nnp.load(path, allow_pickle=True)",
    "numpy objects by a variable": "import numpy\nnumpy.load(path, allow_pickle=pickled)",
    "numpy's other reader": "from numpy.lib import format\nformat.read_array(file, allow_pickle=True)",
    "pandas pickles": "import pandas as pd\npd.read_pickle(path)",
    "pandas eval": "frame.eval('a + b')",
    "os.system": "import os\nos.system(command)",
    "os.system renamed": "from os import system as run\nrun(command)",
    "os.popen": "import os\nos.popen(command)",
    "os.execvp": "import os\nos.execvp(name, words)",
    "a shell": "import subprocess\nsubprocess.run(command, shell=True)",
    "a shell by a variable": "from subprocess import Popen\nPopen(command, shell=wanted)",
    "a shell in hidden keywords": "import subprocess as sp\nsp.run(command, **options)",
    "getoutput": "import subprocess\nsubprocess.getoutput(command)",
    "asyncio's shell": "import asyncio\nasyncio.create_subprocess_shell(command)",
    "__import__": "__import__(name)",
    "__import__ of a literal": "__import__('os').getcwd()",
    "import_module": "import importlib\nimportlib.import_module(name)",
    "import_module renamed": "from importlib import import_module as load\nload(f'specialists.{name}')",
    "import_module of a forbidden module": "import importlib\nimportlib.import_module('pickle')",
    "import_module handed on": "import importlib\nlist(map(importlib.import_module, names))",
    "a file as a module": "import importlib.util\nimportlib.util.spec_from_file_location('m', path)",
    "runpy": "import runpy",
    "a function from code": "import types\ntypes.FunctionType(code, {})",
    "a template": "from jinja2 import Template\nTemplate(text)",
    "remote code": "AutoModel.from_pretrained(path, trust_remote_code=True)",
    "in a default": "def read(text, how=eval):\n    return how(text)",
    "in a decorator": "@eval\ndef f(): ...",
    "in a lambda": "read = lambda text: eval(text)",
    "in a comprehension": "[eval(x) for x in xs]",
    "by a walrus": "import sympy\nif (library := sympy):\n    library.sympify(answer)",
}

HARMLESS = {
    "a model's eval": "model.eval()",
    "a pattern": "import re\nre.compile('a')",
    "a literal": "import ast\nast.literal_eval(text)",
    "json": "import json\njson.loads(text)",
    "safe yaml": "import yaml\nyaml.safe_load(text)\nyaml.load(text, Loader=yaml.SafeLoader)",
    "safe yaml renamed": "from yaml import SafeLoader, load\nload(text, Loader=SafeLoader)",
    "composed yaml": "import yaml\nyaml.compose(text, Loader=yaml.SafeLoader)",
    "weights alone": "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
    "arrays": "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
    "words": "import subprocess\nsubprocess.run(['ls', name], shell=False, timeout=1)",
    "a literal import": "import importlib\nimportlib.import_module('rewards.math')",
    "symbols": "from sympy import Integer, Rational, Symbol, sqrt\nsqrt(Rational(1, 2)) + Symbol('x') * Integer(3)",
    "constants of S": "from sympy import S\nS.Half + S.One + S(3) + S(-1)",
    "N of an expression": "import sympy\nsympy.N(expression, 30)",
    "an own method": "class Judge:\n    def exec(self): ...\nJudge().exec()",
    "an own module that is called code": "from rewards.code import grade_program\nfrom . import code",
    "attributes by name": "getattr(config, name)\ngetattr(config, 'eval_steps')",
    "in a text": "text = 'eval(answer)'  # eval(answer)",
    "the name of an argument": "run(exec_limit=3, shell=True)",
    "a sandboxed template": "from jinja2.sandbox import ImmutableSandboxedEnvironment",
    "a job for the sandbox": "Job.program('exec(open(0).read())')",
}


@pytest.mark.parametrize("name", CAUGHT)
def test_catches(name):
    assert check_source(CAUGHT[name], "example.py")


@pytest.mark.parametrize("name", HARMLESS)
def test_lets_pass(name):
    assert check_source(HARMLESS[name], "example.py") == []


def test_says_where_and_why():
    (found,) = check_source("class Grader:\n    def grade(self, x):\n        return eval(x)\n", "rewards/new.py")
    assert str(found).startswith("rewards/new.py:3: eval in Grader.grade: it executes text as Python")


def test_own_code_is_clean_and_no_exception_is_stale():
    found, stale = check_tree(ROOT)
    assert [str(one) for one in found] == []
    assert stale == []
    assert all(allowed.why for allowed in ALLOWED)


def test_fails_when_something_is_broken(tmp_path, monkeypatch, capsys):
    (tmp_path / "rewards/sandbox/inside").mkdir(parents=True)
    (tmp_path / "rewards/sandbox/inside/jobs.py").write_text("exec(source)")
    monkeypatch.setattr(check_execution, "ROOT", tmp_path)
    monkeypatch.setattr(check_execution, "ALLOWED", ())
    assert check_execution.main() == 0, "what runs inside the sandbox may execute code"

    (tmp_path / "rewards/math.py").write_text("import sympy\ntruth = sympy.sympify(text)\n")
    assert check_execution.main() == 1
    assert "rewards/math.py:2: sympy.sympify in <module>" in capsys.readouterr().out


def test_an_exception_holds_for_one_function_only(tmp_path, monkeypatch):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards/custom.py").write_text(
        "import importlib\n\n\ndef load_function(path):\n    return importlib.import_module(path)\n"
        "\n\ndef other(path):\n    return importlib.import_module(path)\n"
    )
    found, stale = check_tree(tmp_path, ["rewards"])
    assert [(one.function, one.name) for one in found] == [("other", "importlib.import_module")]
    assert "rewards/custom.py" not in {allowed.file for allowed in stale}


def test_is_run_by_make_lint():
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert "scripts/check_execution.py" in recipe
    done = subprocess.run([sys.executable, "scripts/check_execution.py"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
