"""The keys of the components. No torch is imported here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, lt, optional

from ups_kit.data.tree import FileTree
from ups_kit.interfaces import SimulatorConfig
from ups_kit.simulating.keys import seed_key

if TYPE_CHECKING:
    from .dataset import TokenDataset
    from .description import TokenSpec
    from .galaxies.simulation import Galaxies

FAMILY = "tokens"


@frozen(kw_only=True)
class TypedTokensConfig:
    """Sequences of tokens of several modalities under one vocabulary, in an HDF5 file or a Zarr store.

    The file holds tokens, types, lengths, the vocabulary, and what the tokens stand for (the layout `typed_tokens`).
    Shorter sequences are filled up at the end. One sequence in two splits is an error.
    """

    family: ClassVar[str] = FAMILY

    path: Path = field(metadata={"help": "the file or store", "example": '"data/galaxies.h5"'})
    codebooks: Mapping[str, Path] = field(
        factory=dict,
        metadata={
            "help": "files with what the tokens of a modality stand for, (tokens, numbers): .npz, .npy, .joblib; those "
            "in the data file where not given",
            "example": '{ image = "data/image_codebook.npz" }',
        },
    )
    allow_pickle: bool = field(
        default=False,
        metadata={"help": "open .joblib codebooks, which run whatever code they hold: only for files that you trust"},
    )
    length: int | None = field(
        default=None,
        validator=optional(gt(1)),
        metadata={"help": "longer sequences are cut here; none where not given", "unit": "tokens"},
    )
    train: int | None = field(
        default=None, validator=optional(gt(0)), metadata={"help": "train sequences; the rest where not given"}
    )
    validation: int = field(default=50, validator=gt(0), metadata={"help": "validation sequences"})
    test: int = field(default=100, validator=gt(0), metadata={"help": "test sequences"})
    simulate: SimulatorConfig | None = field(
        default=None, metadata={"help": "what makes the file at `path` where there is none"}
    )

    def describe(self) -> TokenSpec:
        """What the sequences are: from the file's header, or from the simulator where it is still to be made."""
        from .opening import describe

        return describe(self)

    def check_data(self, data: TokenSpec) -> Iterable[tuple[str, str]]:
        """The splits take no more sequences than there are, or will be."""
        from .opening import split_problems

        yield from split_problems(self)

    def build(self, seed: int) -> TokenDataset:
        """Make the file if need be, check all sequences, split them."""
        from .dataset import read_dataset

        return read_dataset(self, seed)

    @classmethod
    def recognise(cls, tree: FileTree) -> Mapping[str, Any] | None:
        """No key is needed for a file of the layout."""
        from .layout import LAYOUT

        known = tree.format in ("hdf5", "zarr") and tree.attributes.get("", {}).get("layout") == LAYOUT
        return {} if known else None


def _pieces(instance: Any, attribute: Attribute[Any], value: int) -> None:
    """Images and spectra are cut into whole pieces."""
    name = {"patch": "pixels", "segment": "wavelengths"}[attribute.name]
    whole = getattr(instance, name)
    if whole % value:
        near = min((part for part in range(1, whole + 1) if whole % part == 0), key=lambda part: abs(part - value))
        raise ValueError(
            f"{attribute.name} = {value} does not cut {name} = {whole} into even parts; nearest: "
            f"{attribute.name} = {near}"
        )


def _tokens(default: int, what: str) -> Any:
    return field(default=default, validator=[ge(2), lt(2**15)], metadata={"help": f"tokens that stand for {what}"})


@frozen(kw_only=True)
class GalaxiesConfig:
    """Made galaxies: image, spectrum and scalars of each from the same few latent properties, as sequences of tokens.

    Images show a bulge and a disc with spiral arms, spectra a continuum with lines at the galaxy's redshift; both are
    cut to pieces that stand for the nearest of k-means centroids. Scalars stand for bins of equal numbers. Centroids
    and bins are fitted to other galaxies than those in the file. Values are normalised by those galaxies' mean and
    deviation for each modality.
    """

    family: ClassVar[str] = FAMILY
    endings: ClassVar[tuple[str, ...]] = (".h5", ".hdf5")

    trajectories: int = field(default=4000, validator=gt(0), metadata={"help": "number of galaxies, each a sequence"})
    pixels: int = field(
        default=24, validator=[ge(4), lt(2**15)], metadata={"help": "pixels along each side of an image"}
    )
    patch: int = field(default=4, validator=[ge(1), _pieces], metadata={"help": "pixels along each side of a patch"})
    wavelengths: int = field(default=192, validator=[ge(16), lt(2**24)], metadata={"help": "wavelengths of a spectrum"})
    segment: int = field(default=8, validator=[ge(1), _pieces], metadata={"help": "wavelengths of a segment"})
    image_tokens: int = _tokens(256, "patches of images")
    spectrum_tokens: int = _tokens(256, "segments of spectra")
    scalar_tokens: int = _tokens(64, "bins of each scalar")
    fitted_on: int = field(
        default=1500, validator=ge(50), metadata={"help": "other galaxies that centroids and bins are fitted to"}
    )
    image_noise: float = field(default=0.1, validator=ge(0), metadata={"help": "noise of a pixel", "unit": "counts"})
    spectrum_noise: float = field(
        default=0.03, validator=ge(0), metadata={"help": "noise of a wavelength, as a share of the continuum"}
    )
    missing: float = field(
        default=0.1,
        validator=[ge(0), lt(1)],
        metadata={"help": "share of galaxies that have no image, and of those that have no spectrum"},
    )
    seed: int = seed_key()

    def __attrs_post_init__(self) -> None:
        keys = attrs.fields_dict(type(self))
        pieces = {
            "image_tokens": self.fitted_on * (self.pixels // self.patch) ** 2,
            "spectrum_tokens": self.fitted_on * (self.wavelengths // self.segment),
            "scalar_tokens": self.fitted_on,
        }
        for name, seen in pieces.items():
            if getattr(self, name) > seen:
                message = f"{name} = {getattr(self, name)}: fitted_on = {self.fitted_on} galaxies have {seen} of them"
                raise ValueError(message, keys[name])

    def describe(self) -> TokenSpec:
        """What the file will hold; its codebooks are not fitted yet."""
        from .galaxies.sequences import spec_of

        return spec_of(self)

    def build(self) -> Galaxies:
        from .galaxies.simulation import Galaxies

        return Galaxies(self)
