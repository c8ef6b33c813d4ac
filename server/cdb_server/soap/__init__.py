"""SOAP 1.1 on spyne, the only importer of spyne: makes spyne importable on Python 3.12 and later.

spyne 2.14 carries a copy of `six` whose lazy modules are found through an import hook of a kind that Python 3.12 no
longer calls, and that Python 3.10 and 3.11 warn about at every later import. The finder here answers in its place.
"""

import collections.abc
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# The lazy modules that the parts of spyne used here ask for, and what they stand for.
_MOVES = {"spyne.util.six.moves": None, "spyne.util.six.moves.collections_abc": collections.abc}


class _SixMoves(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname in _MOVES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        stands_for = _MOVES[spec.name]
        if stands_for is not None:
            module.__dict__.update(vars(stands_for))
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


sys.meta_path.insert(0, _SixMoves())

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spyne.const
    import spyne.interface
    import spyne.protocol.soap
    import spyne.server

sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "spyne.util.six"]

# spyne collects garbage once a second, in the middle of a request; Python does so by itself.
spyne.const.MIN_GC_INTERVAL = float("inf")
