"""Parameters that know their axes: a nested dict of arrays, and the logical name of each axis of each array.

The names are part of the tree's structure. Gradients, moments, a reference and shardings are mapped from parameters, so
they have the names, too. Nothing has to guess them from the name of an array.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

Path = tuple[str, ...]


class Axes(Mapping[Path, tuple[str, ...]]):
    """The logical axes of arrays, by their place in a nested dict. It does not change and can be hashed."""

    def __init__(self, by_path: Mapping[Path, tuple[str, ...]]) -> None:
        self._by_path = dict(sorted(by_path.items()))
        self._hash = hash(tuple(self._by_path.items()))

    def __getitem__(self, path: Path) -> tuple[str, ...]:
        return self._by_path[path]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self._by_path)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Axes) and self._by_path == other._by_path)


class Parameters(dict[str, Any]):
    """A nested dict of arrays with `axes`, the logical axes of each of them."""

    axes: Axes

    def __init__(self, tree: Mapping[str, Any], axes: Mapping[Path, tuple[str, ...]]) -> None:
        """Takes from `axes` what the arrays of `tree` need. Raises KeyError for an array that it does not have."""
        super().__init__(tree)
        paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(dict(tree))]
        for path in paths:
            if path not in axes:
                raise KeyError(f"{'.'.join(path)} {NO_AXES}")
        self.axes = axes if isinstance(axes, Axes) and len(axes) == len(paths) else Axes({p: axes[p] for p in paths})

    def map(self, function: Callable[[Path, Any, tuple[str, ...]], Any]) -> "Parameters":
        """`function(path, array, axes)` of each array. A scalar, such as a sum over an array, has no axes.

        Raises KeyError for an array that has no axes, or another number of them.
        """

        def of(path: tuple[Any, ...], leaf: Any) -> Any:
            names = _names(path)
            axes = self.axes.get(names, ()) if leaf.ndim else ()
            if len(axes) != leaf.ndim:
                raise KeyError(f"{'.'.join(names)} {tuple(leaf.shape)} {NO_AXES}")
            return function(names, leaf, axes)

        return jax.tree_util.tree_map_with_path(of, self)


NO_AXES = "has no logical axes: say them where the parameter is made, as in nnx.Param(..., axes=('embed', 'ffn'))"


def _names(path: tuple[Any, ...]) -> Path:
    return tuple(entry.key for entry in path)


def _flatten(params: Parameters) -> tuple[list[Any], tuple[tuple[str, ...], Axes]]:
    names = tuple(sorted(params))
    return [params[name] for name in names], (names, params.axes)


def _flatten_with_keys(params: Parameters) -> tuple[list[tuple[Any, Any]], tuple[tuple[str, ...], Axes]]:
    children, facts = _flatten(params)
    return [(jax.tree_util.DictKey(name), child) for name, child in zip(facts[0], children, strict=True)], facts


def _unflatten(facts: tuple[tuple[str, ...], Axes], children: Any) -> Parameters:
    params = Parameters.__new__(Parameters)  # children may be anything here, so that nothing is to be checked
    params.update(zip(facts[0], children, strict=True))
    params.axes = facts[1]
    return params


jax.tree_util.register_pytree_with_keys(Parameters, _flatten_with_keys, _unflatten, _flatten)
