"""What the inverse losses do: the same recipe, seeds and CPU seconds with both, with one, and with none of them.

python benchmarks/inverse_losses.py --seconds 120 --seeds 3
"""

from __future__ import annotations

from trials import arguments, compare, print_errors


def main() -> None:
    options = arguments(__doc__ or "", seconds=120).parse_args()
    if options.quick:
        options.seeds = 1
    losses = f"stages.{options.stage}.losses"
    variations = {
        "both": [],
        "inverse encoding alone": [f"{losses}.inverse_decoding.weight=0"],
        "inverse decoding alone": [f"{losses}.inverse_encoding.weight=0"],
        "neither": [f"{losses}.inverse_encoding.weight=0", f"{losses}.inverse_decoding.weight=0"],
    }
    budget = "budget.steps=20" if options.quick else f"budget.seconds={options.seconds:g}"
    found = compare(options, "inverse_losses", variations, budget)
    spent = "20 steps" if options.quick else f"{options.seconds:g} CPU seconds"
    print_errors(f"inverse losses, {spent}, seeds 0 to {options.seeds - 1}: nRMSE", found)


if __name__ == "__main__":
    main()
