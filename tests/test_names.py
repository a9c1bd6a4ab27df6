"""A name is a noun of the domain or a verb in the imperative; see CONTRIBUTING.md.

A participle or a filler may qualify a noun (`known_mask`), but not stand alone (`known`): it says
that something happened and hides what it is. Run as a script, this file lists the names that do,
by file.
"""

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("incontext", "demos", "eval")
LIMIT = 0.015  # of all bound names

PARTICIPLES_TEXT = """
answered asked averaged begun bound brought built called changed checked chosen
counted cut described done drawn dropped encoded ended expected filled finished
fitted found given gone gathered grown held joined judged kept known labelled
learned left lent listed looked lost made marked matched meant measured merged met
missed moved named needed opened packed paired passed picked placed planned put
raised reached refused remembered rendered rewritten said scaled seen sent shared
shown sought spared split started stored taken thinned thrown told tried trusted
turned unread used wanted watched weighed written
"""
FILLERS_TEXT = """
about again all away besides both each either else ever every everything few here
its many most much nothing of often once one ones other others ours own rest several
so some still such theirs them there these they this those what where which whole
whose
"""
PARTICIPLES = frozenset(PARTICIPLES_TEXT.split())
FILLERS = frozenset(FILLERS_TEXT.split())


def bound_names(tree: ast.AST) -> list[str]:
    """What a file binds: variables, fields, parameters, functions, classes."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.arg):
            names.append(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
    return names


def hides_its_type(name: str) -> bool:
    """Whether a name has no noun and no imperative: only participles and fillers."""
    words = [word for word in name.strip("_").lower().split("_") if word and not word.isdigit()]
    return bool(words) and all(word in PARTICIPLES | FILLERS for word in words)


def count(folders: tuple[str, ...] = FOLDERS) -> tuple[dict[str, Counter[str]], int]:
    """Names that hide their type, by file, and how many names are bound at all."""
    hidden, total = {}, 0
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            names = bound_names(ast.parse(path.read_text(encoding="utf-8")))
            total += len(names)
            if bad := Counter(name for name in names if hides_its_type(name)):
                hidden[str(path.relative_to(ROOT))] = bad
    return hidden, total


def test_names_say_what_they_are():
    hidden, total = count()
    share = sum(names.total() for names in hidden.values()) / total
    assert share < LIMIT, f"{share:.1%} of names hide their type: python tests/test_names.py"


def test_a_participle_may_qualify_a_noun():
    assert hides_its_type("known")
    assert hides_its_type("asked_of")
    assert not hides_its_type("known_mask")
    assert not hides_its_type("segment")


if __name__ == "__main__":
    bad, names_in_all = count(tuple(sys.argv[1:]) or FOLDERS)
    for file, names in sorted(bad.items(), key=lambda item: -item[1].total()):
        print(f"{names.total():4} {file}: {', '.join(f'{n} {c}' for n, c in names.most_common())}")
    whole = sum(names.total() for names in bad.values())
    print(f"{whole} of {names_in_all} names, {whole / names_in_all:.2%}")
