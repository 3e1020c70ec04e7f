"""CLIPSeg and its baselines (kinds of ``clipseg/``): networks, conditions, visual prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from cases import Case, NotYetError, Results
from numpy.typing import NDArray
from runners_clip import configs, recorded
from torch import Tensor

from promptseg.contracts import Preprocess, PromptFeatures, View
from promptseg.errors import PromptSegError
from promptseg.images import to_pixels
from promptseg.models.clipseg import ClipDeconvConfig, ClipSegConfig, Model
from promptseg.models.clipseg.config import VIT_B16_384
from promptseg.models.clipseg.keys import LAYOUTS
from promptseg.models.clipseg.multilabel import multilabel
from promptseg.models.clipseg.visual import blend, crop_mask, denormalise, draw_blur, img_preprocess, object_box, pad_to_square
from promptseg.models.clipseg.wordings import TEMPLATE_SETS, sample_wordings
from promptseg.nn.attention import AttentionMask, PreNormBlock
from promptseg.nn.clip_keys import openai_image
from promptseg.nn.conversion import from_official, to_official
from promptseg.nn.positions import resize_kernel, resize_table
from promptseg.prompts import Exemplar, Text

OURS = {  # their constructor argument -> our field
    "extract_layers": "taps",
    "reduce_dim": "reduce_dim",
    "n_heads": "heads",
    "cond_layer": "cond_layer",
    "extra_blocks": "extra_blocks",
    "rev_activations": "reverse_taps",
    "reduce_cond": "reduce_cond",
    "fix_shift": "fix_shift",
    "trans_conv": "head_kernel",
    "complex_trans_conv": "refined",
    "n_tokens": "n_tokens",
    "upsample": "upsample",
}
WITHOUT_EFFECT = ("prompt", "learn_trans_conv_only", "limit_to_clip_only", "add_calibration")  # on what a forward pass computes
NETWORKS = ("CLIPDensePredT", "CLIPDensePredTMasked", "VITDensePredT", "CLIPDenseBaseline")
OURS_DECONV = {
    "extract_layer": "tap",
    "reduce_dim": "reduce_dim",
    "reduce2_dim": "hidden",
    "reduce_cond": "reduce_cond",
    "n_tokens": "n_tokens",
}


def config_of(config: Mapping[str, Any]) -> ClipSegConfig | ClipDeconvConfig:
    """The published constructor's arguments as our configuration."""
    if config["class"] not in NETWORKS:
        raise NotYetError(f"the network {config['class']}")
    image, text = configs(config["clip"])
    given = {"reduce_dim": 128} | {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    if config["class"] == "CLIPDenseBaseline":
        return ClipDeconvConfig(image=image, text=text, **_renamed(given, OURS_DECONV, ("cond_layer",)))
    if config["class"] == "VITDensePredT":
        without_effect = ("backbone", "depth", "refine", "fix_shift", "process_cond", "not_pretrained")
        return ClipSegConfig(image=VIT_B16_384, text=text, **_renamed(given, OURS, without_effect))
    return ClipSegConfig(image=image, text=text, **_renamed(given, OURS))


def _renamed(given: Mapping[str, Any], names: Mapping[str, str], without_effect: Sequence[str] = ()) -> dict[str, Any]:
    about = ("class", "version", "clip", *without_effect)
    return {names[key]: value for key, value in given.items() if key not in about}


def network(case: Case) -> Model:
    """The case's network with its weights."""
    return Model.from_official(config_of(case.args["config"]), case.state_dict())


def pixels(photo: NDArray[Any], size: list[int]) -> Tensor:
    """A photo as the quick start shows it: (1, 3, h, w)."""
    shape = (size[0], size[1])
    return to_pixels(photo, View((0, 0, photo.shape[1], photo.shape[0]), shape, shape), Preprocess(size=size[0]))[None]


def forward(case: Case) -> Results:
    """One image, n bare prompts, every intermediate result; published: n copies of the image in one batch."""
    try:
        return {**_forward(case), "fails": False}
    except PromptSegError:
        return {"fails": True}


def _forward(case: Case) -> Results:
    args, published = case.args, case.state_dict()
    net = Model.from_official(config_of(args["config"]), published)
    image, decoder = pixels(args["image"], args["input_size"]), net.decoder
    prompts = net.encode_prompts([Text(prompt) for prompt in args["prompts"]])
    seen = net.see(image, taps=range(net.config.image.layers), square=True)
    blocks = {f"decoder_block{i}": block for i, block in enumerate(getattr(decoder, "blocks", ()))}
    with (
        recorded({f"{name}_in": block for name, block in blocks.items()}, inputs=True) as taken,
        recorded({f"{name}_out": block for name, block in blocks.items()}) as given,
        recorded({"film_mul": decoder.film_mul, "film_add": decoder.film_add}) as film,
    ):
        logits = net.decode(net.encode_image(image, square=True), prompts).logits[0][:, None]
    once = {"image_embedding": seen.embedding, **taken, **given}
    once |= {f"activation_{index}": tokens for index, tokens in seen.activations.items()}
    return {
        **{name: _repeated(value, len(prompts)) for name, value in once.items() if value is not None},
        **{name: value.flatten(0, -2) for name, value in film.items()},
        "pixel_values": image,
        "token_ids": _token_ids(args["prompts"], net.config.text.context),
        "cond": decoder.condition(prompts.condition),
        "logits": logits,
        "logits_shape": list(logits.shape),
        **_counts(net, published),
    }


def _repeated(value: Tensor, count: int) -> Tensor:
    return value.expand(count, *value.shape[1:]) if len(value) == 1 else value


def _token_ids(texts: list[str], context: int) -> Tensor:
    from promptseg.tokenizers import clip as clip_tokenizer

    ids = clip_tokenizer()(texts, context)
    return torch.nn.functional.pad(ids, (0, context - ids.shape[1]))


def _counts(net: Model, published: Mapping[str, Tensor]) -> dict[str, int]:
    """Parameters of the published class: ours, and those that it has and never reads, which count as trainable."""
    ours = named_as_published(net.state_dict(), published)
    dead = sum(tensor.numel() for name, tensor in published.items() if name not in ours)
    total = sum(parameter.numel() for parameter in net.parameters())
    trainable = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    return {"total_parameters": total + dead, "trainable_parameters": trainable + dead}


def named_as_published(ours: Mapping[str, Tensor], published: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of ours under the names of the published class."""
    return {name: tensor for name, tensor in to_official(LAYOUTS["official"], ours).items() if name in published}


def visual(case: Case) -> Results:
    """The condition is the embedding of the support image as a blending mode shows it, alone or mixed with a text."""
    args, net = case.args, network(case)
    query = net.encode_image(pixels(args["query"], args["query_size"]), square=True)
    support = pixels(args["support"], args["support_size"])[0]
    results: dict[str, Tensor] = {}
    for mode in args["modes"]:
        torch.manual_seed(args["torch_seed"] or 0)
        name = "None" if mode is None else mode
        shown = support if args["mask"] is None else blend(support, args["mask"], mode, args["blend_size"])[0]
        condition = net.see(shown[None], square=True).embedding
        assert condition is not None
        results |= {f"prompt/{name}": shown[None], f"cond/{name}": condition, f"logits/{name}": net.decoder(query, condition)}
    for index, mix in enumerate(args["mixes"]):
        text, weight = net.encode_prompts([Text(mix["text"])]), mix["text_weight"]
        both = PromptFeatures((*text.prompts, Exemplar(args["support"])), torch.cat([text.condition, results[f"cond/{mix['mode']}"]]))
        logits = net.decode(query, both.mix([weight, 1 - weight])).logits
        results |= {f"text_cond_{index}": text.condition, f"mix_logits_{index}": logits}
    return results


def masked(case: Case) -> Results:
    """Conditions from support images whose attention is restricted to a mask."""
    args, net = case.args, network(case)
    query, support = (torch.cat([pixels(photo, args["input_size"]) for photo in args[name]]) for name in ("query", "support"))
    support = support.flip(-1) if args["support_flip"] else support
    results: dict[str, Tensor] = {}
    for index, run in enumerate(args["embeddings"]):
        batch, layer = run["batch"], run["layer"]
        blocks = None if layer == "all" else (layer,)
        mask = None if layer is None else AttentionMask(args["masks"][:batch], run["type"], blocks)
        wanted = [block for block in range(net.config.image.layers) if f"attention_{index}/block_{block}" in case.wanted]
        seen = net.see(support[:batch], mask=mask, weights=wanted, square=True)
        assert seen.embedding is not None
        results[f"embedding_{index}"] = seen.embedding
        results |= {f"attention_{index}/block_{block}": weights for block, weights in seen.weights.items()}
    for index, run in enumerate(args["forwards"]):
        batch = run["batch"]
        condition = net.embed_images(support[:batch], AttentionMask(args["masks"][:batch], "cls_token"))
        results[f"logits_{index}"] = net.decoder(net.encode_image(query[:batch], square=True), condition[:, None])
    if args["text"] is not None:
        results["text_logits"] = net.decode(net.encode_image(query[:1], square=True), net.encode_prompts([Text(args["text"])])).logits
    return results


def multilabel_case(case: Case) -> Results:
    """One of a list of classes per pixel."""
    args, net = case.args, network(case)
    image = pixels(args["image"], args["input_size"])
    scores = multilabel(net, image, args["class_names"], args["factors"], args["start"])
    prediction = scores.argmax(1)
    return {"scores": scores, "prediction": prediction, "histogram": torch.bincount(prediction.flatten(), minlength=scores.shape[1])}


def attention(case: Case) -> Results:
    """One residual block on x (L, B, C), its attention logits multiplied by a mask or not."""
    args = case.args
    width, heads = args["config"]["d_model"], args["config"]["n_head"]
    block = PreNormBlock(width, heads).eval()
    theirs = {f"visual.transformer.resblocks.0.{name}": tensor for name, tensor in case.state_dict().items()}
    shapes = {f"image.blocks.0.{name}": tuple(tensor.shape) for name, tensor in block.state_dict().items()}
    ours = from_official(openai_image("visual."), theirs, shapes)
    block.load_state_dict({name.removeprefix("image.blocks.0."): tensor for name, tensor in ours.items()})
    results: dict[str, Tensor] = {}
    for index, run in enumerate(args["passes"]):
        x = args["x"][:, : run["batch"]].transpose(0, 1)
        factors = None
        if run["mask"] is not None:
            mask = AttentionMask(run["mask"][: run["batch"], None], run["type"])
            factors = mask.factors((1, x.shape[1] - 1), heads)
        y, results[f"attn_{index}"] = block.with_weights(x, factors)
        results[f"y_{index}"] = (block(x) if factors is None else y).transpose(0, 1)
    return results


def position_table(case: Case) -> Results:
    """Position tables on other grids, patch kernels of other sizes."""
    args, weights = case.args, case.state_dict()
    tables = {f"table_{h}x{w}": resize_table(weights[args["table"]], (h, w)) for h, w in args["grids"]}
    return {**tables, **{f"kernel_{size}": resize_kernel(weights[args["kernel"]], size) for size in args["kernel_sizes"]}}


def prompts(case: Case) -> Results:
    """Wordings, and wordings drawn at random."""
    args = case.args
    results: dict[str, Any] = {f"templates/{name}": list(TEMPLATE_SETS[name]) for name in args["sets"]}
    for seed in args["torch_seeds"]:
        torch.manual_seed(seed)
        results[f"sampled/{seed}"], results[f"indices/{seed}"] = sample_wordings(args["words"], TEMPLATE_SETS[args["sample_from"]])
    return results


def blend_case(case: Case) -> Results:
    """Every blending mode on one normalised image."""
    args = case.args
    results: dict[str, Any] = {}
    for mode in args["modes"]:
        torch.manual_seed(args["torch_seed"] or 0)
        for index, part in enumerate(blend(args["image"], args["mask"], mode, args["image_size"])):
            results[f"{'None' if mode is None else mode}/{index}"] = part
    torch.manual_seed(args["torch_seed"] or 0)
    draw = draw_blur()
    return {**results, "random/blur": draw.blur, "random/bg_fac": draw.bg_fac}


def img_preprocess_case(case: Case) -> Results:
    """Every option of the visual prompt engineering, each on a fresh copy."""
    args = case.args
    results: dict[str, Tensor] = {"denorm": denormalise(args["denorm_factor"] * args["image"])}
    for run in args["runs"]:
        image = args["image"].clone()
        options = {"image_size": args["image_size"], **run["options"]}
        results[run["name"]] = img_preprocess(image, args["mask"], **options)
        results[f"image_after/{run['name']}"] = image
    return results


def crop_mask_case(case: Case) -> Results:
    """Boxes around masks and what they cut out of a counting image."""
    results: dict[str, Any] = {}
    for index, run in enumerate(case.args["cases"]):
        mask = run["mask"]
        image = torch.arange(3 * mask.numel(), dtype=torch.float32).view(3, *mask.shape)
        crop = crop_mask(image, mask, run["context"], run["square"])
        results[f"{index}/bbox"] = list(object_box(mask, run["context"], run["square"]))
        results[f"{index}/crop_shape"] = list(crop.shape)
        results[f"{index}/padded_shape"] = list(pad_to_square(crop).shape)
        results[f"{index}/crop_sum"] = float(crop.sum())
    return results


RUNNERS = {
    "clipseg/forward": forward,
    "clipseg/visual": visual,
    "clipseg/masked": masked,
    "clipseg/multilabel": multilabel_case,
    "clipseg/attention": attention,
    "clipseg/position_table": position_table,
    "clipseg/prompts": prompts,
    "clipseg/blend": blend_case,
    "clipseg/img_preprocess": img_preprocess_case,
    "clipseg/crop_mask": crop_mask_case,
}
