"""Parts of a package that are loaded when they are first used: `import npvae` is quick.  Not part of the lesson."""
import sys
from collections.abc import Callable
from importlib import import_module


def later(package: str, *modules: str) -> Callable[[str], object]:
    """A `__getattr__` for the package: these modules of it, and the names of its __all__ that are in them.

    It raises AttributeError for other names.
    """
    def look_up(name: str) -> object:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name in sys.modules[package].__all__:
            for module in modules:
                found = import_module(f"{package}.{module}")
                if hasattr(found, name):
                    return getattr(found, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return look_up
