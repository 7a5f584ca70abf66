import copy

import numpy as np
import pytest
import torch

from towers.optim import KerasAdam


def keras_adam(weights, gradients, lr=1e-3, betas=(0.9, 0.999), eps=1e-7, t=0, m=None, v=None):
    """Keras's update in plain numpy, float64; a step whose gradient is None moves nothing but the count."""
    b1, b2 = betas
    w = np.array(weights, dtype=np.float64)
    m = np.zeros_like(w) if m is None else m
    v = np.zeros_like(w) if v is None else v
    for g in gradients:
        t += 1
        if g is None:
            continue
        m += (g - m) * (1 - b1)
        v += (g * g - v) * (1 - b2)
        w -= lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
    return w


def some_gradients(steps, shape, seed=0):
    """Gradients from 1e-10 up to 1, so that epsilon matters."""
    numbers = np.random.default_rng(seed)
    return [numbers.normal(size=shape) * 10.0 ** (i % 11 - 10) for i in range(steps)]


def run(optimizer, parameters, gradients):
    for step in zip(*gradients, strict=True):
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = None if gradient is None else torch.tensor(gradient, dtype=parameter.dtype)
        optimizer.step()


def parameter(shape, seed=0, dtype=torch.float64):
    return torch.nn.Parameter(
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    )


@pytest.mark.parametrize(
    "way", [{}, {"foreach": False}, {"foreach": True}, {"fused": True}], ids=["default", "loop", "foreach", "fused"]
)
@pytest.mark.parametrize("eps", [1e-7, 1e-3])
def test_equals_the_slow_reference(way, eps):
    w = parameter((3, 4))
    start, gradients = w.detach().numpy().copy(), some_gradients(60, (3, 4))
    run(KerasAdam([{"params": [w], **way}], lr=0.01, eps=eps), [w], [gradients])
    np.testing.assert_allclose(w.detach().numpy(), keras_adam(start, gradients, lr=0.01, eps=eps), rtol=0, atol=1e-12)


def test_differs_from_torch_adam_where_gradients_are_small():
    """Proves that the reference test can fail."""
    w = parameter((3, 4))
    start, gradients = w.detach().numpy().copy(), some_gradients(60, (3, 4))
    run(torch.optim.Adam([w], lr=0.01, eps=1e-7), [w], [gradients])
    assert np.abs(w.detach().numpy() - keras_adam(start, gradients, lr=0.01)).max() > 1e-3


def test_each_group_has_its_own_numbers():
    first, second = parameter(5), parameter(7, seed=1)
    starts = [p.detach().numpy().copy() for p in (first, second)]
    gradients = [some_gradients(30, 5), some_gradients(30, 7, seed=1)]
    groups = [{"params": [first], "lr": 0.1, "betas": (0.8, 0.99)}, {"params": [second], "eps": 1e-4}]
    optimizer = KerasAdam(groups, lr=0.02)
    run(optimizer, [first, second], gradients)
    expected = [
        keras_adam(starts[0], gradients[0], lr=0.1, betas=(0.8, 0.99)),
        keras_adam(starts[1], gradients[1], lr=0.02, eps=1e-4),
    ]
    for got, wanted in zip((first, second), expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=0, atol=1e-12)
    assert [group["eps"] for group in optimizer.param_groups] == [1e-7, 1e-4]


@pytest.mark.parametrize("late", [1, 10])
def test_a_parameter_that_joins_late_is_corrected_by_the_optimizers_step(late):
    always, sometimes = parameter(3), parameter(4, seed=1)
    start, gradients = sometimes.detach().numpy().copy(), some_gradients(30, 4)
    gradients[:late] = [None] * late
    gradients[20] = None
    run(KerasAdam([always, sometimes], lr=0.01), [always, sometimes], [some_gradients(30, 3), gradients])
    np.testing.assert_allclose(sometimes.detach().numpy(), keras_adam(start, gradients, lr=0.01), rtol=0, atol=1e-12)


def test_amsgrad_of_a_group_reaches_a_parameter_that_joins_late():
    always, late = parameter(3), parameter(4, seed=1)
    optimizer = KerasAdam([{"params": [always, late], "amsgrad": True}])
    run(optimizer, [always, late], [some_gradients(5, 3), [None, None, *some_gradients(3, 4)]])
    assert set(optimizer.state[late]) == set(optimizer.state[always])


def test_goes_on_from_a_state_dict():
    w = parameter(6)
    start, gradients = w.detach().numpy().copy(), some_gradients(40, 6)
    optimizer = KerasAdam([w], lr=0.01)
    run(optimizer, [w], [gradients[:17]])
    resumed = KerasAdam([w], lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, [w], [gradients[17:]])
    np.testing.assert_allclose(w.detach().numpy(), keras_adam(start, gradients, lr=0.01), rtol=0, atol=1e-12)


def test_a_copy_goes_on_as_the_original():
    model = torch.nn.Linear(3, 2)
    optimizer = KerasAdam(model.parameters())
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    for net, opt in ((model, optimizer), (twin, twin_optimizer)):
        for _ in range(3):
            opt.zero_grad()
            net(torch.ones(1, 3)).square().sum().backward()
            opt.step()
    assert torch.equal(model.weight, twin.weight)


def test_the_closures_gradients_are_the_ones_taken():
    w = parameter(4)
    start = w.detach().numpy().copy()
    optimizer = KerasAdam([w], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx((start**2).sum())
    np.testing.assert_allclose(w.detach().numpy(), keras_adam(start, [2 * start], lr=0.1), rtol=0, atol=1e-12)


def test_hooks_run_once_even_after_torchs_adam_was_used():
    torch.optim.Adam([parameter(2)])
    w = parameter(2)
    optimizer, calls = KerasAdam([w]), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    run(optimizer, [w], [some_gradients(1, 2)])
    assert calls == ["before", "after"]


def test_no_gradient_at_all_changes_nothing():
    w = parameter(3)
    before = w.detach().clone()
    optimizer = KerasAdam([w])
    optimizer.step()
    assert torch.equal(w, before)
    assert optimizer.param_groups[0]["eps"] == 1e-7


def test_epsilon_survives_a_step_that_fails():
    w = torch.nn.Parameter(torch.zeros(3, 2))
    w.grad = torch.zeros(3, 2).to_sparse()
    optimizer = KerasAdam([w])
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert optimizer.param_groups[0]["eps"] == 1e-7


@pytest.mark.parametrize(("options", "message"), [({"lr": -1.0}, "learning rate"), ({"eps": -1.0}, "epsilon")])
def test_senseless_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KerasAdam([parameter(1)], **options)


@pytest.mark.cuda
@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": False}], ids=["default", "fused", "loop"])
def test_equals_the_slow_reference_on_cuda(options):
    w = torch.nn.Parameter(parameter((3, 4)).detach().cuda())
    start, gradients = w.detach().cpu().numpy().copy(), some_gradients(60, (3, 4))
    optimizer = KerasAdam([{"params": [w], **options}], lr=0.01)
    for gradient in gradients:
        w.grad = torch.tensor(gradient, device="cuda")
        optimizer.step()
    np.testing.assert_allclose(w.detach().cpu().numpy(), keras_adam(start, gradients, lr=0.01), rtol=0, atol=1e-12)


def test_a_fused_group_without_gradients_stays_as_it_is():
    moved, still = parameter(3), parameter(4)
    before = still.detach().clone()
    optimizer = KerasAdam([{"params": [moved], "fused": True}, {"params": [still], "fused": True}])
    run(optimizer, [moved, still], [some_gradients(3, 3), [None] * 3])
    assert torch.equal(still, before)
    assert optimizer.state[moved]["step"] == 3
