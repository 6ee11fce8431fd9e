import subprocess
import sys

CODE = """
import pkgutil, sys, importlib, rewards
names = [module.name for module in pkgutil.walk_packages(rewards.__path__, "rewards.")]
for name in names:
    if name != "rewards.math.opinion":
        importlib.import_module(name)
heavy = {"torch", "ray", "sympy", "math_verify", "py3langid", "pipeline", "specialists", "rollout", "model"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_room_imports_nothing_heavy_and_nothing_above_it():
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
