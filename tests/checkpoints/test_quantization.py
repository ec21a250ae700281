"""Which weights are held in 4 bits."""


def test_the_vision_tower_and_the_head_are_not_quantised(scorer):
    import bitsandbytes

    kinds = {name: type(module) for name, module in scorer.model.network.named_modules()}
    quantised = {name for name, kind in kinds.items() if issubclass(kind, bitsandbytes.nn.Linear4bit)}
    assert len(quantised) == 35 and all("language_model.layers" in name for name in quantised)
    settings = scorer.model.network.config.quantization_config
    assert settings.bnb_4bit_quant_type == "nf4" and settings.bnb_4bit_use_double_quant
