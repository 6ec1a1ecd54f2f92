"""Where a package can run: the catalogue of targets, the machines that run one here, and what is measured on
them.
"""

from microtune.targets.catalogue import Target, boards, target, targets

__all__ = ["Target", "boards", "target", "targets"]
