"""What a residual block gets is rounded once, for its layers and for what its shortcut carries.

Without this each layer rounds its own input, and a shortcut that is the identity carries floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain, count
from operator import is_not

from torch import fx, nn

from suite.networks.graph import ADD, Tracer
from suite.quantizers.layers import LAYERS, Quantized, layer_of
from suite.quantizers.quantizer import Quantizer
from suite.recipe.errors import SuiteError, first_line


class BlockInput(Quantized):
    """Rounds what the layers `readers`, by name, and the shortcut of a residual block get."""

    def __init__(self, quantizer: Quantizer, readers: Sequence[str]) -> None:
        super().__init__(nn.Identity(), quantizer, None)
        self.readers = tuple(readers)


def round_block_inputs(model: nn.Module) -> nn.Module:
    """`model`, what `quantize` gave, with a BlockInput before each residual block, in the place of the quantizers of
    the layers that read what the block gets; as an fx.GraphModule in which all modules keep their names. A block
    stays as it is where none of these layers rounds its input.

    Raises SuiteError as `check_block_inputs`, and where these layers' inputs have different widths.
    """
    graph = _graph(model)
    found = _block_inputs(model, graph)
    traced = fx.GraphModule(model, graph)
    for fork, readers in found:
        held = [one for name in readers if isinstance(one := traced.get_submodule(name), Quantized)]
        given = [one.input for one in held if one.input is not None]
        if not given:
            continue
        if len({quantizer.grid.bits for quantizer in given}) > 1:
            raise SuiteError(
                f"{', '.join(readers)} get one rounded input together with carried='rounded', but have inputs of "
                f"different widths; give them one width, or use carried='float'"
            )
        rounding = given[0]
        for one in held:
            one.input = None
        name = _free_name(traced, readers[0].rpartition(".")[0])
        traced.add_submodule(name, BlockInput(rounding, readers))
        with graph.inserting_after(fork):
            rounded = graph.call_module(name, (fork,))
        fork.replace_all_uses_with(rounded, delete_user_cb=partial(is_not, rounded))
    traced.recompile()
    return traced


def check_block_inputs(model: nn.Module) -> None:
    """Raise SuiteError where torch.fx cannot trace `model`, with quantizers or without, where it has no residual
    block, and where what a block gets reaches no layer directly, so that no range of it is known."""
    _block_inputs(model, _graph(model))


def _graph(model: nn.Module) -> fx.Graph:
    try:
        return Tracer((Quantized,)).trace(model)
    except Exception as error:  # of whatever the network's forward does with a stand-in for its input
        raise SuiteError(
            f"torch.fx cannot trace the network ({first_line(error)}), so its residual blocks are not known; use "
            f"carried='float'"
        ) from None


def _block_inputs(model: nn.Module, graph: fx.Graph) -> list[tuple[fx.Node, list[str]]]:
    """Of each residual block the node that its paths part from, and the names of the layers that read it."""
    nodes = list(graph.nodes)
    order = {node: number for number, node in enumerate(nodes)}
    above: dict[fx.Node, set[fx.Node]] = {}
    for node in nodes:
        above[node] = {part for given in node.all_input_nodes for part in (given, *above[given])}
    layers = [node for node in nodes if _is_layer(model, node)]
    found: dict[fx.Node, list[str]] = {}
    for node in nodes:
        if node.op == "call_module" or node.target not in ADD or len(node.all_input_nodes) != 2:
            continue
        one, other = ({given} | above[given] for given in node.all_input_nodes)
        fork = max(one & other, key=order.__getitem__, default=None)
        if fork is None or not any(fork in above[layer] and layer in one | other for layer in layers):
            continue
        found[fork] = [str(user.target) for user in fork.users if user in layers]
        if not found[fork]:
            raise SuiteError(
                f"what the residual block before {node.name} gets, {fork.name}, reaches no layer directly, so that it "
                f"cannot be rounded once for layers and shortcut; use carried='float'"
            )
    if not found:
        raise SuiteError(
            "the network has no residual block, so no shortcut carries anything; use carried='float'"
        )
    return list(found.items())


def _is_layer(model: nn.Module, node: fx.Node) -> bool:
    module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer_of(module), LAYERS)


def _free_name(model: nn.Module, parent: str) -> str:
    names = {name for name, _ in model.named_modules()}
    own = f"{parent}.block_input" if parent else "block_input"
    return next(name for name in chain((own,), (f"{own}_{n}" for n in count(1))) if name not in names)
