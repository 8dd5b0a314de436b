"""Sizes and bit operations counted by hand, as many layers as a ResNet-50 has, and every method that takes widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.mixed import Keeping

from suite import networks
from suite.methods import find as find_methods
from suite.methods.mixed import Mixed
from suite.methods.scheme import Scheme
from suite.recipe import Network
from suite.recipe.errors import SuiteError
from suite.run.pipeline import quantized
from suite.sensitivity.width_search import Resource, least_cost
from suite.steps import AssignWidths


def test_bits_operations_and_size_of_a_resnet20_are_those_counted_by_hand() -> None:
    """Weights 432 + 267,264 + 640; products 442,368 + 40,108,032 + 640; 688 channels of BatchNorm and 10 biases."""
    torch.manual_seed(0)
    network, x = networks.build(Network("resnet20", "A")).eval(), torch.randn(1, 3, 32, 32)
    insert = Scheme(3, 4, first_last=8).steps()[0]
    feed = Keeping(network, x)
    quantized([insert, AssignWidths("uniform", first_last=8)], feed)
    kept = feed.kept["widths.json"]
    assert kept["mean_weight_bits"] == (3 * 267_264 + 8 * 1_072) / 268_336
    assert kept["mean_weight_bits_by_layer"] == (18 * 3 + 2 * 8) / 20
    assert kept["bops"] == 40_108_032 * 3 * 4 + 443_008 * 64
    assert 8e6 * kept["size_mb"] == pytest.approx(3 * 267_264 + 8 * 1_072 + 32 * (10 + 4 * 688))


def test_as_many_layers_and_widths_as_resnet50_has_are_assigned_and_the_same_every_time() -> None:
    """50 groups of 36 pairs of widths within two budgets, costs over six decades."""
    generator = np.random.default_rng(0)
    bits = np.array([2, 3, 4, 5, 6, 8])
    products = np.outer(bits, bits).ravel()
    costs = 10 ** generator.uniform(-6, 0, (50, 1)) * np.exp2(-2.0 * np.repeat(bits, 6))
    costs = costs + 10 ** generator.uniform(-6, 0, (50, 1)) * np.exp2(-2.0 * np.tile(bits, 6))
    weights, macs = generator.integers(1e3, 2e6, (2, 50, 1))
    resources = [
        Resource(weights * np.repeat(bits, 6), 2.5 * weights.sum()),
        Resource(macs * products, 6.25 * macs.sum()),
    ]
    choice = least_cost(costs, resources)
    assert choice == least_cost(costs, resources)
    assert all(resource.holds(choice) for resource in resources)
    assert resources[0].of(choice) > 0.99 * resources[0].limit


def test_every_method_that_rounds_the_layers_of_a_trained_network_takes_widths() -> None:
    refused = set()
    for name, kind in find_methods().items():
        try:
            Mixed() if name == "mixed" else Mixed(kind())
        except SuiteError as reason:
            assert f"widths by layer are not for {name}" in str(reason)
            refused.add(name)
    assert refused == {"builtin_int8", "int_cast", "k_sigma", "linear", "qat_asymmetric", "qat_symmetric"}
