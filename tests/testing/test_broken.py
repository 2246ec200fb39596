"""Components that each break one clause fail in it, and are told so by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ups_kit.errors import PluginError
from ups_kit.plugins import Catalog
from ups_kit.testing import BrokenContract, check_component, clauses_of

CASES = [
    # (kind, name, the clauses that are broken, words of the message)
    ("optimizer", "no_example", {"defaults-build"}, "its example '[...]' is no value"),
    ("operator", "doubling", {"round-trip"}, "steps = 2 is 4"),
    ("operator", "soft", {"frozen"}, "Soft.width can be assigned to"),
    ("operator", "silent", {"documented"}, "no help for width"),
    ("operator", "nameless", {"documented"}, "Nameless has no docstring"),
    (
        "schedule",
        "heavy",
        {"no-torch-at-listing"},
        "importing broken_listing and asking it what it offers imports torch",
    ),
    ("encoder", "padded", {"padding"}, "with 5 points of padding: results that differ"),
    ("encoder", "ordered", {"permutation"}, "with points in another order: results that differ"),
    ("encoder", "narrow", {"shapes"}, "tokens of shape (1, 8, 8) for 1 samples and width 16"),
    ("encoder", "mixing", {"samples-apart"}, "a sample alone: results that differ"),
    ("encoder", "rooted", {"finite-gradients"}, "is not finite"),
    ("operator", "idle", {"reaches-every-parameter"}, "no gradient reaches spare.weight, spare.bias"),
    ("operator", "numpy_state", {"state-round-trip"}, "scale is a numpy.float64"),
    ("operator", "random", {"deterministic"}, "called twice with the same input in evaluation mode"),
    ("operator", "unseeded", {"deterministic"}, "built twice with one seed, 'linear.bias' differs"),
    ("decoder", "mixes_queries", {"queries-apart"}, "fewer queries: results that differ"),
    ("decoder", "numbered", {"permutation"}, "in another order: results that differ"),
    ("loss", "overclaims", {"reaches"}, "says encoder, operator, decoder, and reaches encoder, decoder"),
    ("loss", "greedy", {"needs"}, "uses decoded(1), which its needs() does not name"),
    ("loss", "unmasked", {"padding"}, "with 4 points of it"),
    ("loss", "short", {"needs"}, "asks for the frame t+1, and horizon = 0"),
    ("sampler", "draws_padding", {"never-padding"}, "padding was drawn"),
    ("sampler", "twice", {"indices"}, "a point was drawn twice"),
    ("sampler", "unseeded", {"seeded"}, "one seed gave two draws"),
    ("metric", "nan", {"constant-truth"}, "NaN where the truth is 0"),
    ("metric", "offset", {"perfect"}, "1 for a perfect forecast"),
    ("tracker", "littering", {"own-folder"}, "it has written ['litter.txt'] in the working directory"),
    ("optimizer", "forgetful", {"state-round-trip"}, "differs after two more steps"),
    ("optimizer", "uphill", {"lowers-a-quadratic"}, "the values "),
    ("schedule", "negative", {"factor"}, "the factor -0."),
    ("stage", "careless", {"resumes"}, "differs after step 2 was resumed"),
    ("simulator", "uneven", {"in-parts"}, "'tensor' differs where trajectories are solved in parts"),
    ("dataset", "twice", {"normalisation"}, "off, relatively"),
]

BESIDES: dict[str, set[str]] = {  # further laws that one fault breaks with the first
    "rooted": {"bf16"},
    "random": {"samples-apart", "state-round-trip"},
    "numbered": {"queries-apart", "grid"},
}


@pytest.mark.parametrize(
    ("kind", "name", "clauses", "words"), CASES, ids=[f"{kind}-{name}" for kind, name, *_ in CASES]
)
def test_the_broken_clause_is_named(
    broken: Catalog,
    kind: str,
    name: str,
    clauses: set[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenContract) as raised:
        check_component(kind, name, catalog=broken)
    found = set(raised.value.clauses)
    assert found == clauses | BESIDES.get(name, set())
    text = str(raised.value)
    assert text.startswith(f"{kind} '{name}' of the plugin 'broken_")
    assert all(f"  {clause}: expected: " in text for clause in clauses)
    assert words in text


def test_every_clause_says_what_it_expects() -> None:
    for kind in ("dataset", "simulator", "encoder", "operator", "decoder", "model", "constraint", "loss", "sampler"):
        clauses = clauses_of(kind)
        assert {"defaults-build", "round-trip", "documented"} < set(clauses)
        assert all(len(law) > 20 for law in clauses.values())


def test_an_unknown_component_is_told_with_the_nearest_name(broken: Catalog) -> None:
    with pytest.raises(PluginError, match="no encoder is called 'paded'; did you mean 'padded'"):
        check_component("encoder", "paded", catalog=broken)
