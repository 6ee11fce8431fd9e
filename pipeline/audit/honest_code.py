"""Right programs and functions in the styles that people and models write: strictness must not cost them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.audit.cases import Case, CodeSubject, say
from pipeline.audit.exploits_code import (
    ANY_ORDER,
    CHECKER,
    DOUBLES,
    FACTORED,
    FACTORS,
    HALVES,
    ONE_OF,
    SQUARES,
    YES_NO,
    fenced,
)
from rollout.records import MODES

PROGRAMS: Mapping[str, str] = {
    "one line": "print(int(input()) ** 2)",
    "two statements": "n = int(input()); print(n * n)",
    "a main function": (
        "def main():\n    n = int(input())\n    print(n * n)\n\nif __name__ == '__main__':\n    main()"
    ),
    "the whole of stdin": "import sys\nn = int(sys.stdin.read())\nprint(n * n)",
    "lines of stdin": "import sys\nfor line in sys.stdin:\n    if line.strip():\n        print(int(line) ** 2)",
    "stdin as a file": "n = int(open(0).readline())\nprint(n * n)",
    "bytes of stdin": "import sys\nn = int(sys.stdin.buffer.readline())\nsys.stdout.buffer.write(b'%d' % (n * n))",
    "the operating system's calls": "import os\nn = int(os.read(0, 99))\nos.write(1, f'{n * n}\\n'.encode())",
    "write without a newline": "import sys\nsys.stdout.write(str(int(input()) ** 2))",
    "space around the answer": "print('\\n ', int(input()) ** 2, ' \\t\\n')",
    "a return before the newline": "print(int(input()) ** 2, end='\\r\\n')",
    "flush": "print(int(input()) ** 2, flush=True)",
    "notes on stderr": "import sys\nn = int(input())\nprint('n =', n, file=sys.stderr)\nprint(n * n)",
    "ends with exit()": "print(int(input()) ** 2)\nexit()",
    "ends with sys.exit(0)": "import sys\nprint(int(input()) ** 2)\nsys.exit(0)",
    "ends with os._exit(0)": "import os\nprint(int(input()) ** 2, flush=True)\nos._exit(0)",
    "type hints": (
        "def square(n: int) -> int:\n    return n * n\n\n\nanswer: int = square(int(input()))\nprint(answer)"
    ),
    "a docstring and comments": "\"\"\"Squares a number.\"\"\"\n# read\nn = int(input())\n# write\nprint(n * n)",
    "a loop": "n = abs(int(input()))\ntotal = 0\nfor _ in range(n):\n    total += n\nprint(total)",
    "odd numbers": "n = abs(int(input()))\nprint(sum(range(1, 2 * n, 2)))",
    "recursion": "def sq(n): return 0 if n == 0 else sq(n - 1) + 2 * n - 1\nprint(sq(abs(int(input()))))",
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**5)\ndef down(k): return 0 if k == 0 else 1 + down(k - 1)\n"
        "n = int(input())\nprint(down(3000) - 3000 + n * n)"
    ),
    "a class": (
        "class Square:\n    def __init__(self, n): self.n = n\n    def __str__(self): return str(self.n ** 2)\n"
        "print(Square(int(input())))"
    ),
    "a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    n: int\n    @property\n"
        "    def square(self): return self.n * self.n\nprint(P(int(input())).square)"
    ),
    "functools and operator": (
        "from functools import reduce\nfrom operator import mul\nn = int(input())\nprint(reduce(mul, [n, n]))"
    ),
    "fractions": "from fractions import Fraction\nprint(Fraction(input().strip()) ** 2)",
    "decimals": "from decimal import Decimal\nprint(int(Decimal(input()) ** 2))",
    "math": "import math\nprint(int(math.pow(int(input()), 2)))",
    "a generator": "def gen():\n    n = int(input())\n    yield n * n\nprint(*gen())",
    "asyncio": (
        "async def main(): return int(input()) ** 2\nc = main()\ntry: c.send(None)\n"
        "except StopIteration as s: print(s.value)"
    ),
    "a thread": (
        "import threading\ndef work(): print(int(input()) ** 2)\nt = threading.Thread(target=work)\nt.start()\n"
        "t.join()"
    ),
    "match": "n = int(input())\nmatch n:\n    case 0: print(0)\n    case _: print(n * n)",
    "walrus": "print((n := int(input())) * n)",
    "an exception that is caught": (
        "try:\n    n = int(input())\n    1 / 0\nexcept ZeroDivisionError:\n    print(n * n)"
    ),
    "a memory of moderate size": "n = int(input())\nx = [0] * 10**6\nprint(n * n + sum(x))",
    "heavy but within the limit": (
        "n = int(input())\ns = 0\nfor i in range(10**6): s += i & 1\nprint(n * n + s - 500000)"
    ),
    "other names than ASCII": "größe = int(input())  # größer\nprint(größe * größe)",
    "backticks in a string": "s = '`' * 3\nprint(int(input()) ** 2)",
    "tabs": "def f(n):\n\treturn n * n\nprint(f(int(input())))",
}

FUNCTIONS: Mapping[str, str] = {
    "a definition": "def f(x):\n    return 2 * x",
    "a lambda": "f = lambda x: x + x",
    "hints and a docstring": "def f(x: int) -> int:\n    \"\"\"Twice x.\"\"\"\n    return x * 2",
    "a helper": "def _double(x): return x * 2\n\ndef f(x): return _double(x)",
    "a decorator": "import functools\n\n@functools.cache\ndef f(x):\n    return 2 * x",
    "functools.partial": "from functools import partial\nfrom operator import mul\nf = partial(mul, 2)",
    "a callable object": "class Doubler:\n    def __call__(self, x): return 2 * x\nf = Doubler()",
    "a static method": "class Solution:\n    @staticmethod\n    def f(x): return 2 * x\nf = Solution.f",
    "a bound method": "class Solution:\n    def f(self, x): return 2 * x\nf = Solution().f",
    "prints on the way": "def f(x):\n    print('x is', x)\n    return 2 * x",
    "a main part below": "def f(x): return 2 * x\n\nif __name__ == '__main__':\n    print(f(int(input())))",
    "assertions": "def f(x): return 2 * x\nassert f(2) == 4",
    "an int of a subclass": "import enum\nclass N(int): pass\ndef f(x): return N(2 * x)",
    "recursion on the argument": (
        "def f(x): return 0 if x == 0 else (2 if x > 0 else -2) + f(x - (1 if x > 0 else -1))"
    ),
    "extra arguments with defaults": "def f(x, factor=2, *rest, **more): return factor * x",
    "bits": "def f(x): return x << 1",
}

FORMS: Mapping[str, str] = {
    "prose around": "The square of n is n * n:\n\n" + fenced("print(int(input()) ** 2)") + "\n\nThis runs in O(1).",
    "inline code around": "Use `n * n`.\n" + fenced("n = int(input())\nprint(n * n)") + "\nHere `n` is the input.",
    "a capital tag": "```Python\nprint(int(input()) ** 2)\n```",
    "an indented block": "  ```python\nprint(int(input()) ** 2)\n  ```",
    "empty lines inside": "```python\n\n\nn = int(input())\n\nprint(n * n)\n\n```",
}

RECORD = ({"args": [3], "result": {"square": 9, "parts": [1, 2.5, None, True, "x"]}},)
CLOSE = tuple({"args": [x], "result": x / 7, "tolerance": 1e-6} for x in (1, 5, 14))
OWN: Mapping[str, tuple[Sequence[Mapping[str, Any]], str | None, Any, str]] = {
    "lines in another order": (ANY_ORDER, None, "any_order", "print('c\\nb\\na')"),
    "one accepted answer": (ONE_OF, None, "one_of", "print(round(int(input()) ** 0.5))"),
    "the other accepted answer": (ONE_OF, None, "one_of", "print(-round(int(input()) ** 0.5))"),
    "capitals": (YES_NO, None, "caseless", "s = input()\nprint('YES' if s == s[::-1] else 'No')"),
    "factors in one order": (
        FACTORS,
        None,
        {"source": CHECKER},
        "n = int(input())\nd = next(d for d in range(2, n) if n % d == 0)\nprint(d, n // d)",
    ),
    "factors in the other": (
        FACTORED,
        None,
        {"source": CHECKER},
        "n = int(input())\nd = next(d for d in range(n - 1, 1, -1) if n % d == 0)\nprint(d, n // d)",
    ),
    "six decimals": (HALVES, None, None, "print(f'{int(input()) / 8:.6f}')"),
    "scientific notation": (HALVES, None, None, "print(f'{int(input()) / 8:.7e}')"),
    "no zero before the point": (HALVES, None, None, "print(str(int(input()) / 8).lstrip('0'))"),
    "a fraction": (HALVES, None, None, "from fractions import Fraction\nprint(float(Fraction(int(input()), 8)))"),
    "a record": (RECORD, "f", None, "def f(n): return {'parts': [1, 2.5, None, True, 'x'], 'square': n * n}"),
    "a tuple for a list": (RECORD, "f", None, "def f(n): return {'parts': (1, 2.5, None, True, 'x'), 'square': n * n}"),
    "a defaultdict": (
        RECORD,
        "f",
        None,
        "from collections import defaultdict\ndef f(n):\n    d = defaultdict(list)\n    d['square'] = n * n\n"
        "    d['parts'] += [1, 2.5, None, True, 'x']\n    return d",
    ),
    "a float by another way": (CLOSE, "f", None, "def f(x): return x * (1 / 7)"),
    "a whole number where a float is near": (CLOSE[2:], "f", None, "def f(x): return x // 7"),
    "items in another order": (
        ({"args": [3], "result": [[0, 1], [1, 2], [2, 3]]},),
        "f",
        "any_order",
        "def f(n): return [[i - 1, i] for i in range(n, 0, -1)]",
    ),
}

CASES: tuple[Case, ...] = (
    *(
        Case(f"program: {name}", "code", "paid", CodeSubject(SQUARES, fenced(source)))
        for name, source in PROGRAMS.items()
    ),
    *(
        Case(f"function: {name}", "code", "paid", CodeSubject(DOUBLES, fenced(source), function="f"))
        for name, source in FUNCTIONS.items()
    ),
    *(
        Case(f"form: {name}", "code", "paid", CodeSubject(SQUARES, say(text, mode), mode=mode))
        for mode, (name, text) in zip(MODES * len(FORMS), FORMS.items(), strict=False)
    ),
    *(
        Case(
            f"own problem: {name}",
            "code",
            "paid",
            CodeSubject(tuple(tests), fenced(source), function=function, options={"checker": checker}),
        )
        for name, (tests, function, checker, source) in OWN.items()
    ),
)
