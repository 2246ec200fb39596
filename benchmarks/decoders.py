"""The three decoders side by side at equal CPU seconds: partition of unity, local attention, perceiver.

python benchmarks/decoders.py --seconds 120 --seeds 3
"""

from __future__ import annotations

from trials import arguments, compare, print_errors

DECODERS = ("partition", "local", "perceiver")


def main() -> None:
    options = arguments(__doc__ or "", seconds=120).parse_args()
    if options.quick:
        options.seeds = 1
    budget = "budget.steps=20" if options.quick else f"budget.seconds={options.seconds:g}"
    found = compare(options, "decoders", {name: [f"decoder.use={name}"] for name in DECODERS}, budget)
    spent = "20 steps" if options.quick else f"{options.seconds:g} CPU seconds"
    print_errors(f"decoders, {spent}, seeds 0 to {options.seeds - 1}: nRMSE", found)


if __name__ == "__main__":
    main()
