"""The keys of the parts for meshes."""

from __future__ import annotations

from attrs import frozen

from ups_kit.supernodes import SupernodeKeys

# ---------------------------------------------------------------------------------------------------------------------
# Encoders
# ---------------------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class MeshEncoderConfig(SupernodeKeys):
    """Nodes of a mesh, or any points that stand still, to latent tokens through supernodes.

    Supernodes stand on a lattice over the domain unless the recipe says otherwise, so that the tokens are the same in
    number and place whatever the mesh: what is trained on one discretisation can be evaluated on another.
    """
