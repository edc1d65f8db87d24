"""Weights of adapted layers and of larger models: converted where they are plain, and otherwise refused with the reason."""

import jax.numpy as jnp
import numpy as np
import pytest

from attn import parity
from attn.parity.trees import flatten

E, N = 6, 3


def same_bits(found, expected):
    found, expected = flatten(found), flatten(expected)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert np.asarray(found[name]).tobytes() == np.asarray(x).tobytes()


@pytest.fixture
def module(torch):
    return torch.nn.MultiheadAttention(E, N, batch_first=True).eval()


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # inside of torch.compile
def test_what_wraps_a_module_is_looked_into(torch, module):
    layer, expected = parity.from_torch(module)
    for wrapper in (torch.compile(module), torch.nn.DataParallel(module), torch.compile(torch.nn.DataParallel(module))):
        found = parity.from_torch(wrapper)
        assert found[0] == layer
        same_bits(found[1], expected)
        changed = {"params": {name: {k: x + 1 for k, x in part.items()} for name, part in expected["params"].items()}}
        assert parity.to_torch(changed, wrapper) is wrapper
        same_bits(parity.from_torch(module)[1], changed)
        parity.to_torch(expected, module)


def test_a_prefix_chooses_a_module_of_a_state_dict(torch):
    encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(E, N, 7), 2, enable_nested_tensor=False)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
        encoder.layers[1].self_attn.in_proj_weight.mul_(2)
    weights = encoder.state_dict()
    expected = parity.from_torch(encoder.layers[1].self_attn)[1]
    for prefix in ("layers.1.self_attn", "layers.1.self_attn."):
        same_bits(parity.from_torch(weights, num_heads=N, prefix=prefix)[1], expected)
    first = parity.from_torch(weights, num_heads=N, prefix="layers.0.self_attn")[1]
    assert not np.array_equal(first["params"]["query"]["kernel"], expected["params"]["query"]["kernel"])
    with pytest.raises(
        ValueError, match=r"begin with 'layers\.0\.self_attn\.' \(1 more modules are there\): pass it as prefix"
    ):
        parity.from_torch(weights, num_heads=N)
    with pytest.raises(
        ValueError, match=r"prefix='layer' is not that of the names of such a module; did you mean 'layers\.0\.self_attn\."
    ):
        parity.from_torch(weights, num_heads=N, prefix="layer")
    with pytest.raises(ValueError, match=r"prefix='layers\.1' is not that of .* did you mean 'layers\.1\.self_attn\.'\?$"):
        parity.from_torch(weights, num_heads=N, prefix="layers.1")
    with pytest.raises(ValueError, match="prefix='x' is for a state_dict"):
        parity.from_torch(encoder.layers[1].self_attn, prefix="x")
    with pytest.raises(ValueError, match=r"or its state_dict; it has one, module\.layers\.0\.self_attn"):
        parity.from_torch(encoder)
    compiled = torch.compile(encoder.layers[1].self_attn).state_dict()
    with pytest.raises(ValueError, match=r"begin with '_orig_mod\.'"):
        parity.from_torch(compiled, num_heads=N)
    same_bits(parity.from_torch(compiled, num_heads=N, prefix="_orig_mod")[1], expected)


def test_a_prefix_chooses_a_layer_of_d2l():
    weights = {f"W_{name}.weight": np.random.default_rng(ord(name)).normal(size=(E, E)) for name in "qkvo"}
    whole = {f"blks.0.attention.{name}": x for name, x in weights.items()} | {"head.bias": np.ones(2)}
    same_bits(parity.from_d2l(whole, num_heads=N, prefix="blks.0.attention")[1], parity.from_d2l(weights, num_heads=N)[1])
    with pytest.raises(ValueError, match=r"begin with 'blks\.0\.attention\.': pass it as prefix"):
        parity.from_d2l(whole, num_heads=N)


def adapt(torch, module, how):
    from torch.nn.utils import prune

    utils = torch.nn.utils
    if how == "pruned":
        prune.l1_unstructured(module, "in_proj_weight", 0.5)
    elif how == "pruned inside":
        prune.l1_unstructured(module.out_proj, "weight", 0.5)
    elif how == "parametrized":
        utils.parametrizations.orthogonal(module, "in_proj_weight")
    elif how == "parametrized inside":
        utils.parametrizations.weight_norm(module.out_proj)
    elif how == "spectral norm":
        utils.spectral_norm(module, "in_proj_weight")
    elif how == "adapter":
        module.out_proj.lora_A = torch.nn.Linear(E, 2, bias=False)
    elif how == "quantized":
        module.out_proj = torch.ao.nn.quantized.dynamic.Linear(E, E)
    return module.to("meta") if how == "meta" else module


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm|quantization|deprecated).*")
@pytest.mark.parametrize(
    "how, message",
    [
        ("pruned", r"the module is pruned \(in_proj_weight_mask\): call torch.nn.utils.prune.remove first"),
        ("pruned inside", r"the module is pruned \(out_proj.weight_mask\)"),
        ("parametrized", r"the module is parametrized \(parametrizations.in_proj_weight.*remove_parametrizations first"),
        ("parametrized inside", r"the module is parametrized \(out_proj.parametrizations.weight.original0\)"),
        ("spectral norm", r"the module has spectral norm \(in_proj_weight_orig\): call torch.nn.utils.remove_spectral_norm"),
        ("adapter", r"the module has an adapter \(LoRA\) \(out_proj.lora_A.weight\): merge it into the weights first"),
        ("quantized", r"the module is quantized \(out_proj\.(scale|_packed_params).*\): convert the module from before"),
        ("meta", r"in_proj_weight is on the meta device and has no values: load them first"),
    ],
)
def test_an_adapted_module_is_refused_with_the_reason(torch, module, how, message):
    adapted = adapt(torch, module, how)
    for source in (adapted, adapted.state_dict()):
        with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
            parity.from_torch(source, num_heads=N)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda torch, x: x.to(torch.float8_e4m3fn), "of torch.float8_e4m3fn: NumPy cannot hold it"),
        (lambda torch, x: x.to_sparse(), "is sparse: it must be a dense array"),
        (lambda torch, x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "is quantized: it must be a dense array"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_numpy_cannot_hold_is_refused(torch, module, change, message):
    weights = module.state_dict()
    weights["out_proj.weight"] = change(torch, weights["out_proj.weight"].detach())
    with pytest.raises(ValueError, match=f"^out_proj.weight [^\n]*{message}[^\n]*$"):
        parity.from_torch(weights, num_heads=N)


@pytest.mark.filterwarnings("ignore")
def test_an_adapted_layer_of_keras_is_refused_with_the_reason(keras):
    x = np.ones((1, 4, E), np.float32)
    layers = [keras.layers.MultiHeadAttention(2, 3, name="heads") for _ in range(2)]
    for layer in layers:
        layer(x, x)
    layers[0].query_dense.enable_lora(2)
    layers[1].value_dense.quantize("int8")
    lora = "Keras layer 'heads' has 'query', which has LoRA enabled: copy its merged kernel into a layer without LoRA first"
    int8 = "Keras layer 'heads' has 'value', which is quantized (int8): only weights in floating point can be converted"
    for layer, message in zip(layers, (lora, int8), strict=True):
        with pytest.raises(ValueError) as error:
            parity.from_keras(layer)
        assert str(error.value) == message
    model = keras.Sequential([keras.layers.Embedding(9, E), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)])
    model(jnp.zeros((1, 4), jnp.int32))
    model.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match=r"^Keras layer 'embedding\w*' has LoRA enabled: copy"):
        parity.from_keras(model)
