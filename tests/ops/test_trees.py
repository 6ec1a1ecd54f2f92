"""B7: trees as tables of integers go where the trees go, and their leaves learn by the formula. Under the sanitizers;
the oracle walks the trees node by node, and solves the Gaussian process with the forest's kernel at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.ops.sanitized_kernels import SanitizedKernels

from microtune.compiler.passes.fuse_trees import binary_places, fuse_trees
from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.frontends.tree_tables import Tree, put, walked
from microtune.ir import Graph, verify
from microtune.ops import OPS
from microtune.ops.closed_form import packed, triangle, unpacked
from microtune.ops.trees import LEAST, entries, floats_of, keys_of

U = 2.0**-24
NEAR = np.array([0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 1.0, -2.5, 3.4e38, -3.4e38, np.inf, -np.inf], np.float32)
"""Inputs beside those at thresholds; the device refuses the infinite ones, the comparison does not mind."""


def random_tree(r: np.random.Generator, comparisons: int, features: int, width: int) -> Tree:
    """A tree of any shape; thresholds are float64, some of them float32 numbers, zeros, and far out."""
    left, right = [-1], [-1]
    leaves = [0]
    for _ in range(comparisons):
        node = leaves.pop(int(r.integers(len(leaves))))
        left[node], right[node] = len(left), len(left) + 1
        leaves += [len(left), len(left) + 1]
        left += [-1, -1]
        right += [-1, -1]
    size = len(left)
    threshold = r.normal(size=size) * 10.0 ** r.integers(-3, 3, size)
    threshold = np.where(r.random(size) < 0.3, threshold.astype(np.float32), threshold)
    odd = r.choice([0.0, -0.0, 1e-50, -1e-50, 1e39, -1e39, 1 / 3], size)
    threshold = np.where(r.random(size) < 0.2, odd, threshold)
    return Tree(
        np.array(left), np.array(right), r.integers(0, features, size), threshold, r.normal(size=(size, width)) * 10
    )


def leaf_of(tree: Tree, x: np.ndarray) -> int:
    """The node that x ends in, in the numbers of the tree."""
    node = 0
    while tree.left[node] >= 0:
        goes_left = float(x[tree.feature[node]]) <= tree.threshold[node]
        node = int(tree.left[node] if goes_left else tree.right[node])
    return node


@dataclass(frozen=True)
class Forest:
    trees: Sequence[Tree]
    graph: Graph
    outputs: int

    @property
    def tables(self) -> list[np.ndarray]:
        return [np.asarray(self.graph.tensor(name).data) for name in self.graph.nodes[0].inputs[1:]]

    @property
    def values(self) -> np.ndarray:
        return np.asarray(self.graph.tensor(self.graph.nodes[1].inputs[2]).data)

    def rows(self, x: np.ndarray) -> list[int]:
        """The row of each tree's leaf among all leaves, from the left."""
        found, first = [], 0
        for tree in self.trees:
            order = walked(tree).leaves.tolist()
            found.append(first + order.index(leaf_of(tree, x)))
            first += len(order)
        return found


def forest(sizes: Sequence[int], features: int, width: int, outputs: int, seed: int) -> Forest:
    r = np.random.default_rng(seed)
    trees = [random_tree(r, size, features, width) for size in sizes]
    builder = Builder("forest")
    x = builder.input("x", (features,))
    compared = lambda x, features, thresholds: x.astype(np.float64) <= thresholds  # noqa: E731
    return Forest(trees, verify(builder.finish(put(builder, x, trees, outputs, compared, "test"), "test")), outputs)


def inputs_of(made: Forest, features: int, r: np.random.Generator) -> Iterator[np.ndarray]:
    """Each feature at a threshold of it, a float next to one, or anywhere."""
    rows = [(tree.feature[node], tree.threshold[node]) for tree in made.trees for node in walked(tree).comparisons]
    for _ in range(6):
        x = (r.normal(size=features) * 10.0 ** r.integers(-2, 2, features)).astype(np.float32)
        r.shuffle(rows)
        with np.errstate(over="ignore"):
            for feature, threshold in rows:
                at = np.float32(threshold)
                x[feature] = r.choice([at, np.nextafter(at, np.float32(np.inf)), np.nextafter(at, np.float32(-np.inf))])
        some = r.integers(0, features, max(1, features // 4))
        x[some] = r.choice(NEAR, len(some))
        yield x


def test_no_more_comparisons_than_two_bytes_count() -> None:
    """A tree that is a chain, each comparison on the left of the one before it."""
    size = 2**16
    inside = np.arange(2 * size + 1) % 2 == 0
    inside[-1] = False
    left = np.where(inside, np.arange(2 * size + 1) + 2, -1)
    right = np.where(inside, np.arange(2 * size + 1) + 1, -1)
    chain = Tree(left, right, np.zeros(len(left), int), np.zeros(len(left)), np.zeros((len(left), 1)))
    builder = Builder("chain")
    with pytest.raises(ModelError, match="a tree of 65536 comparisons over 1 features; up to 65535 of each"):
        put(builder, builder.input("x", (1,)), [chain], 1, lambda x, features, thresholds: x <= thresholds, "test")


CASES = st.tuples(
    st.lists(st.integers(0, 12), min_size=1, max_size=8), st.sampled_from([1, 3, 300]), st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
LARGE = (([300, 0, 40], 5, 1, 1), ([0, 0], 1, 2, 2), ([5] * 60, 2, 2, 3))
"""Two bytes an entry; nothing to compare; many comparisons that share few splits are in ``CASES`` too."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SanitizedKernels]:
    made = forest([2, 1], 2, 1, 1, 0)
    fused = fuse_trees(made.graph)
    leaves = np.zeros((2, 1), np.int8)
    x, (sizes, *_), values = np.zeros(2, np.float32), made.tables, made.values
    given = made.graph.nodes[1].attributes
    one, state = np.zeros(1, np.float32), np.zeros(triangle(len(values)), np.float32)
    learning = [values, state, leaves, sizes, one, one], {**given, "prior": 1.0, "walk": 0.0}
    node = fused.nodes[0]
    examples = {
        "tree_leaves": ([x, *made.tables], made.graph.nodes[0].attributes),
        "tree_sum": ([leaves, sizes, values], given),
        "tree_sum_grad": ([one, leaves, sizes], {**given, "shape": values.shape}),
        "sgd_tree_sum": ([values, np.float32(1), one, leaves, sizes], {**given, "clip": 0.0}),
        "forest": ([x, *(np.asarray(fused.tensor(name).data) for name in node.inputs[1:])], node.attributes),
        "log_probabilities": ([x], {}),
        "log_odds": ([x], {}),
        **{f"leaves_{loss}": learning for loss in ("mse", "binary_cross_entropy", "cross_entropy")},
    }
    found = SanitizedKernels(tmp_path_factory.mktemp("trees"), examples)
    yield found
    found.close()


@settings(max_examples=25, deadline=None)
@given(case=CASES)
@example(case=LARGE[0])
@example(case=LARGE[1])
@example(case=LARGE[2])
def test_every_comparison_goes_the_same_way(kernels: SanitizedKernels, case: tuple[list[int], int, int, int]) -> None:
    """Leaf for leaf, at thresholds, next to them, at zeros, the ends and infinities; sums within the roundings of one
    addition a tree; the fused form within half a unit of its last place a tree, and its own last rounding."""
    sizes, features, width, seed = case
    outputs = 2
    made = forest(sizes, features, width, outputs, seed)
    leaves_node, sum_node = made.graph.nodes
    fused = fuse_trees(made.graph)
    given, total = leaves_node.attributes, sum_node.attributes
    r = np.random.default_rng(seed)
    for x in inputs_of(made, features, r):
        rows = made.rows(x)
        (leaves,) = kernels.run("tree_leaves", [x, *made.tables], given)
        counts = entries(made.tables[0], given["size_bytes"]) + 1
        assert (np.cumsum(counts) - counts + entries(leaves, given["leaf_bytes"])).tolist() == rows
        assert (OPS["tree_leaves"].reference([x, *made.tables], given)[0] == leaves).all()

        parts = [np.zeros(outputs) for _ in rows]
        for tree, row in enumerate(rows):
            first = tree * width % outputs
            parts[tree][first : first + width] = made.values[row]
        exact, reach = sum(parts), sum(np.abs(part) for part in parts)
        (y,) = kernels.run("tree_sum", [leaves, made.tables[0], made.values], total)
        assert (np.abs(y - exact) <= len(rows) * U * reach).all()

        (node,) = fused.nodes
        tables = [np.asarray(fused.tensor(name).data) for name in node.inputs[1:]]
        (y,) = kernels.run("forest", [x, *tables], node.attributes)
        half = 2.0 ** -(node.attributes["places"] + 1)
        assert (np.abs(y - exact) <= len(rows) * half + U * np.abs(y)).all()
        np.testing.assert_array_equal(y, OPS["forest"].reference([x, *tables], node.attributes)[0])

        dy = r.normal(size=outputs).astype(np.float32)
        (gradient,) = kernels.run("tree_sum_grad", [dy, leaves, made.tables[0]], {**total, "shape": made.values.shape})
        wanted = np.zeros_like(made.values)
        for tree, row in enumerate(rows):
            wanted[row] = dy[tree * width % outputs :][:width]
        np.testing.assert_array_equal(gradient, wanted)
        rate, clip = np.array(0.3, np.float32), float(np.float32(0.7))
        inputs = [made.values, rate, dy, leaves, made.tables[0]]
        (stepped,) = kernels.run("sgd_tree_sum", inputs, {**total, "clip": clip})
        np.testing.assert_array_equal(stepped, made.values - rate * np.clip(wanted, -clip, clip))


def test_not_a_number_ends_in_a_leaf(kernels: SanitizedKernels) -> None:
    made = forest([9, 3], 2, 1, 1, 5)
    for x in np.array([[np.nan, 0], [-np.nan, np.nan]], np.float32):
        (leaves,) = kernels.run("tree_leaves", [x, *made.tables], made.graph.nodes[0].attributes)
        assert (leaves.reshape(-1) <= [9, 3]).all()


def test_keys_are_in_the_order_of_floats() -> None:
    floats = np.unique(np.concatenate([NEAR, np.random.default_rng(0).normal(size=1000).astype(np.float32)]))
    keys = keys_of(floats[np.argsort(floats)])
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(floats_of(keys).view(np.int32), np.sort(floats).view(np.int32))
    assert keys_of(np.array([-0.0])) == -1 and keys_of(np.array([0.0])) == 0


@settings(max_examples=30, deadline=None)
@given(
    whole=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=20), places=st.integers(-60, 120),
)  # fmt: skip
@example(whole=[0, 1, -1, 2**24 + 1, 2**24 + 3, -(2**31) + 1, 2**31 - 1, 2**31 - 65], places=30)
def test_whole_numbers_become_the_nearest_float(kernels: SanitizedKernels, whole: list[int], places: int) -> None:
    """One tree without comparisons whose leaf says these numbers."""
    tables = [np.zeros(size, dtype) for size, dtype in ((1, np.int8), (1, np.int8), (1, np.int8), (1, np.int32))]
    given = {"size_bytes": 1, "split_bytes": 0, "feature_bytes": 1, "leaf_bytes": 1, "row_bytes": 0}
    given |= {"outputs": len(whole), "places": places}
    values = np.array([whole], np.int32)
    (y,) = kernels.run("forest", [np.zeros(1, np.float32), *tables, np.zeros(1, np.int8), values], given)
    np.testing.assert_array_equal(y, np.ldexp(values[0].astype(np.float32), -places))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9))
@example([0.0, 1.0, 0.5, LEAST, 1 - LEAST, 1e-45])
def test_logits_of_probabilities(kernels: SanitizedKernels, p: list[float]) -> None:
    """``mt_log`` is within one unit in the last place; 1 - p is rounded once; the difference too."""
    x = np.array(p, np.float32)
    (y,) = kernels.run("log_probabilities", [x], {})
    wanted = np.log(np.maximum(x.astype(np.float64), LEAST))
    assert (np.abs(y - wanted) <= 2 * U * np.abs(wanted)).all()
    (y,) = kernels.run("log_odds", [x], {})
    yes = np.clip(x.astype(np.float64), LEAST, 1 - LEAST)
    assert (np.abs(y - np.log(yes / (1 - yes))) <= 4 * U * (np.abs(np.log(yes)) + np.abs(np.log1p(-yes))) + U).all()


def test_sums_never_leave_32_bits() -> None:
    """The largest sum of all trees, and one step of rounding each, is within; one more binary place would not be."""
    for seed, scale in enumerate((1e-30, 1e-3, 1.0, 7e8, 1e30)):
        r = np.random.default_rng(seed)
        sizes = r.integers(0, 9, 20)
        values = r.normal(size=(int((sizes + 1).sum()), 2)) * scale
        places = binary_places(values, sizes)
        starts = np.cumsum(sizes + 1) - (sizes + 1)
        rounded = np.rint(np.ldexp(np.abs(values), places))
        most = np.maximum.reduceat(rounded.max(axis=1), starts).sum()
        assert most <= 2**31 - 1 and (places == 120 or 2 * most > 2**31 - 1 - 2 * len(sizes))


def learnt(
    kernels: SanitizedKernels, loss: str, made: Forest, samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    prior: float, walk: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Values and covariance after samples of (leaves, y, target); y where it is given, else what the values say."""
    values = np.zeros((len(made.values), made.outputs), np.float32)
    state = packed(np.eye(len(values)) * prior).astype(np.float32)
    given = {**made.graph.nodes[1].attributes, "prior": prior, "walk": walk, "outputs": made.outputs}
    for leaves, base, target in samples:
        (said,) = OPS["tree_sum"].reference([leaves, made.tables[0], values], given)
        inputs = [values, state, leaves, made.tables[0], (base + said).astype(np.float32), target]
        values, state, _ = kernels.run(f"leaves_{loss}", inputs, given)
    return values, state


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), outputs=st.integers(1, 3), count=st.integers(1, 30),
    prior=st.sampled_from([0.05, 1.0, 5.0]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_squared_error_is_the_process_with_the_kernel_of_the_forest(
    kernels: SanitizedKernels, sizes: list[int], outputs: int, count: int, prior: float, seed: int
) -> None:
    """Sample after sample gives K (K + I)^-1 r of all at once, K = prior times the leaves two samples share. Each step
    is off by its roundings, and the answers by their sum, at most what the prior says of them."""
    made = forest(sizes, 3, outputs, outputs, seed)
    r = np.random.default_rng(seed)
    xs = r.normal(size=(count, 3)).astype(np.float32)
    leaves = [OPS["tree_leaves"].reference([x, *made.tables], made.graph.nodes[0].attributes)[0] for x in xs]
    base, target = r.normal(size=(2, count, outputs)).astype(np.float32)
    values, _ = learnt(kernels, "mse", made, list(zip(leaves, base, target, strict=True)), prior, 0.0)
    phi = np.zeros((count, len(made.values)))
    for row, x in zip(phi, xs, strict=True):
        row[made.rows(x)] = 1
    shared = prior * phi @ phi.T
    wanted = shared @ np.linalg.solve(shared + np.eye(count), (target - base).astype(np.float64))
    reach = (1 + prior * len(sizes)) * (np.abs(target - base).max() + 1)
    assert np.abs(phi @ values - wanted).max() <= 8 * count * (len(made.values) + 8) * U * reach


@pytest.mark.parametrize(("loss", "outputs"), [("mse", 2), ("binary_cross_entropy", 1), ("cross_entropy", 3)])
def test_steps_are_their_references_and_variance_comes_back(kernels: SanitizedKernels, loss: str, outputs: int) -> None:
    """40 samples against float64; a walk makes no variance larger than the prior; wild answers leave finite numbers."""
    made = forest([3, 2, 4], 3, outputs, outputs, 8)
    r = np.random.default_rng(1)
    given = {**made.graph.nodes[1].attributes, "prior": 2.0, "walk": 0.02}
    values, state = np.zeros(made.values.shape), packed(np.eye(len(made.values)) * 2.0)
    samples = []
    for x in r.normal(size=(40, 3)).astype(np.float32):
        (leaves,) = OPS["tree_leaves"].reference([x, *made.tables], made.graph.nodes[0].attributes)
        base = r.normal(size=outputs).astype(np.float32)
        target = r.normal(size=outputs) if loss == "mse" else r.integers(0, max(2, outputs), 1)
        samples.append((leaves, base, target.astype(np.float32)))
        (said,) = OPS["tree_sum"].reference([leaves, made.tables[0], values], given)
        inputs = [values, state, leaves, made.tables[0], base + said, target]
        values, state, _ = OPS[f"leaves_{loss}"].reference(inputs, given)
    found, covariance = learnt(kernels, loss, made, samples, 2.0, 0.02)
    # 40 steps of some 30 roundings each, of values and variances of about 2
    assert np.abs(found - values).max() <= 40 * 30 * U * 4 and np.abs(covariance - state).max() <= 40 * 30 * U * 4
    assert unpacked(covariance).diagonal().max() <= 2.0
    wild = [(leaves, base * np.float32(1e38), target) for leaves, base, target in samples]
    found, covariance = learnt(kernels, loss, made, wild[:3], 2.0, 0.02)
    assert np.isfinite(found).all() and np.isfinite(covariance).all()
