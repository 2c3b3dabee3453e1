"""Checkpoints as transformers 5 writes them, and as the versions before it did: the same model comes out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deepfake_deploy.export import ExportError, Precision, export_model
from deepfake_deploy.export.checkpoint import Checkpoint, load_processor
from deepfake_deploy.export.contract import check_configuration, check_preprocessing
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, SiglipProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.support.checkpoints import LABELS
from tests.support.exports import SilentProgress, exported_files, load_exported

NESTED, FLAT = "processor_config.json", "preprocessor_config.json"


@pytest.fixture
def whole(checkpoint: Path, tmp_path: Path) -> Path:
    """The small checkpoint with a whole processor beside it, saved by transformers itself."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "whole"))
    (folder / FLAT).unlink()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0})))
    SiglipProcessor(SiglipImageProcessorPil(resample=2), tokenizer).save_pretrained(folder)
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def check(folder: Path) -> None:
    """What an export checks before it reads a weight."""
    check_configuration(folder, LABELS)
    check_preprocessing(load_processor(Checkpoint("it", None, folder)), "it")


def write_both(folder: Path, *, nested: int, flat: int) -> None:
    """Two image processors, each with its own `resample`."""
    edit(folder / NESTED, lambda whole: whole["image_processor"].update(resample=nested))
    image_processor = json.loads((folder / NESTED).read_text())["image_processor"]
    (folder / FLAT).write_text(json.dumps({**image_processor, "resample": flat}))


def test_a_whole_processor_is_read_and_the_model_is_the_same(
    whole: Path, repository: Path, empty_repository: Path
) -> None:
    assert not (whole / FLAT).exists()
    export_model(str(whole), None, Precision.FP32, empty_repository, SilentProgress())
    provenances = [json.loads(exported_files(each)[1].read_text()) for each in (repository, empty_repository)]
    assert provenances[0]["preprocessing"] == provenances[1]["preprocessing"]
    assert provenances[0]["weights_sha256"] == provenances[1]["weights_sha256"]
    pixels = torch.randint(0, 256, (3, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(load_exported(repository)(pixels)[1], load_exported(empty_repository)(pixels)[1])


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("resample", 3, r"resample is 3 \(bicubic\)"),
        ("resample", None, r"resample is 3 \(bicubic\)"),  # transformers' default
        ("size", {"height": 384, "width": 384}, "size is .*384"),
        ("image_mean", [0.485, 0.456, 0.406], "image_mean is"),
        ("image_std", [0.229, 0.224, 0.225], "image_std is"),
        ("rescale_factor", 1.0, "rescale_factor is 1.0"),
        ("do_rescale", False, "do_rescale is False"),
        ("image_processor_type", "ViTImageProcessor", "image_processor_type is 'ViTImageProcessor'"),
        ("auto_map", {"AutoImageProcessor": "its_own.Processor"}, "auto_map is"),
    ],
)
def test_the_image_processor_in_it_is_checked_like_one_of_its_own(
    whole: Path, key: str, value: object, found: str
) -> None:
    edit(whole / NESTED, lambda content: content["image_processor"].update({key: value}))
    if value is None:
        edit(whole / NESTED, lambda content: content["image_processor"].pop(key))
    with pytest.raises(ExportError, match=found):
        check(whole)


def test_of_two_image_processors_the_one_in_the_processor_counts_as_in_transformers(whole: Path) -> None:
    write_both(whole, nested=2, flat=3)
    check(whole)
    write_both(whole, nested=3, flat=2)
    with pytest.raises(ExportError, match="resample is 3"):
        check(whole)


def test_a_processor_of_an_older_version_has_no_image_processor_in_it(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "older"))
    (folder / NESTED).write_text('{"processor_class": "SiglipProcessor"}')
    check(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"image_processor": 3}', '{"image_processor": {"size": "x"}}'])
def test_a_processor_of_no_use_is_one_sentence(whole: Path, content: str) -> None:
    (whole / NESTED).write_text(content)
    with pytest.raises(ExportError, match="its image processor"):
        check(whole)


@pytest.mark.parametrize(
    "name",
    [
        {"image_processor_type": "SiglipImageProcessor"},
        {"image_processor_type": "SiglipImageProcessorFast"},
        {"feature_extractor_type": "SiglipFeatureExtractor"},
        {"image_processor_type": "SiglipImageProcessor", "processor_class": "SiglipProcessor"},
        {},  # the model's own
    ],
)
def test_the_image_processor_by_every_name_that_a_version_gave_it(whole: Path, name: dict[str, str]) -> None:
    def rename(content: dict[str, Any]) -> None:
        del content["image_processor"]["image_processor_type"]
        content["image_processor"].update(name)

    edit(whole / NESTED, rename)
    check(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"dtype": None, "torch_dtype": "float16"},
        {"problem_type": "single_label_classification"},
        {"problem_type": None, "function_to_apply": "softmax"},
        {"label2id": {"Deepfake": "0", "Real one": "1"}},
        {"label2id": {"LABEL_0": 0, "LABEL_1": 1}},
        {"label2id": None},
        {"num_labels": 2, "_num_labels": 2, "_name_or_path": "google/siglip2-base-patch16-224"},
    ],
)
def test_a_configuration_as_one_version_or_another_wrote_it(whole: Path, change: dict[str, Any]) -> None:
    edit(whole / "config.json", lambda config: config.update(change))
    check(whole)


def test_a_configuration_that_spells_out_every_default(whole: Path) -> None:
    extra = {"vision_use_head": True, "num_channels": 3, "return_dict": True, "output_attentions": False}
    edit(whole / "config.json", lambda config: config["vision_config"].update(extra))
    edit(whole / "config.json", lambda config: config.update({"initializer_factor": 1.0, "use_cache": True}))
    check(whole)
